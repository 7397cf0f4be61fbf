"""Plan + template -> the script. Pure: the same plan gives the same bytes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from clusterctl import durations
from clusterctl.errors import UsageProblem
from clusterctl.model import Plan, Resources


def sbatch_quote(value: object) -> str:
    """Quote a value for a ``#SBATCH`` line.

    sbatch has a parser of its own: inside double quotes a backslash escapes the next character and nothing
    else is special. ``shlex.quote`` would be wrong, since sbatch reads backslashes inside single quotes too.

    Raises:
        UsageProblem: a line break, which would end the line and begin a command.
    """
    if any(ord(character) < 32 or ord(character) == 127 for character in str(value)):
        raise UsageProblem(f"{value!r} cannot stand in a #SBATCH line", hint="leave out control characters")
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def shell_path(path: str) -> str:
    """Quote a path for the shell; a leading ``~/`` is the home directory of whoever runs the script."""
    return f'"$HOME"/{shlex.quote(path[2:])}' if path.startswith("~/") else shlex.quote(path)


def render(plan: Plan, template: Path, **values: str) -> str:
    """The job script; ``values`` are what the template needs beside the plan.

    Raises:
        UsageProblem: the template is broken or names a value that does not exist.
    """
    # Here, because a plan needs gpu_request alone, and to load this takes longer than to plan.
    from jinja2 import FileSystemLoader, StrictUndefined, TemplateError, TemplateSyntaxError
    from jinja2.sandbox import SandboxedEnvironment

    # A template writes a program, but must not be one: a dry run shows what it wrote, and has done nothing.
    environment = SandboxedEnvironment(
        loader=FileSystemLoader(template.parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # shell, not HTML: every value passes `q` or `sbatch`
    )
    environment.filters["q"] = lambda value: shlex.quote(str(value))
    environment.filters["shell_path"] = shell_path
    environment.filters["sbatch"] = sbatch_quote
    environment.filters["slurm_time"] = durations.slurm_time
    try:
        text = environment.get_template(template.name).render(plan=plan, gpus=gpu_request(plan.resources), **values)
    except TemplateError as e:
        line = f":{e.lineno}" if isinstance(e, TemplateSyntaxError) else ""
        raise UsageProblem(
            f"{template}{line}: {e.message or e}", hint="compare it with the shipped job_templates/job.sh.j2"
        ) from e
    # Parts that are left out leave their blank lines behind.
    return re.sub(r"\n{3,}", "\n\n", text)


def gpu_request(resources: Resources) -> str | None:
    """``a800:4`` for ``--gpus-per-node``, ``gpu:a800:4`` for ``--gres``; None without GPUs."""
    if not resources.gpus_per_node:
        return None
    words = [resources.gpu_type, str(resources.gpus_per_node)]
    if resources.gpu_request == "gres":
        words.insert(0, "gpu")
    return ":".join(word for word in words if word)
