"""A project whose jobs do not train: where only the way to Slurm and back is looked at, a second is enough."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.project import Project, Run, make_project
from tests.slurm.box import Box

_PYTHON = """\
#!/bin/bash
# In the place of the Python that trains: ends well as soon as there is a file `go` in the run directory.
[[ $1 == -m && $2 == trainers ]] || exec {python} "$@"
say() {{
    printf '{{"schema":1,"attempt":%s,"phase":"%s","step":%s,"max_steps":12}}' "$CLUSTERCTL_ATTEMPT" "$1" "$2" > new
    mv new progress.json
}}
say training 3
until [[ -e go ]]; do sleep 0.1; done
say finished 12
"""


def make_stand_in_project(folder: Path, box: Box) -> Project:
    """A project as ``make_project`` makes it, with a stand-in for the Python that trains."""
    model = folder.parent / "model"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "qwen2"}', encoding="utf-8")
    project = make_project(folder, box.env, model)
    python = folder.parent / "stand-in"
    python.write_text(_PYTHON.format(python=shlex.quote(sys.executable)), encoding="utf-8")
    python.chmod(0o755)
    with (folder / "clusterctl.yaml").open("a", encoding="utf-8") as site:
        site.write(f"environment: {{kind: python, path: {json.dumps(str(python))}}}\n")
    return project


def finish(run: Run) -> None:
    """Let the run end well, and wait until clusterctl says so."""
    (run.run_dir / "go").touch()
    run.wait_for("COMPLETED")


def finish_all(project: Project) -> None:
    """Let everything that the project has submitted come to its end."""
    for run_dir in run_dirs(project):
        (run_dir / "go").touch()


def run_dirs(project: Project) -> list[Path]:
    """All run directories."""
    return sorted((project.folder / "logs").glob("*"))


def queued(box: Box, project: Project) -> list[str]:
    """The ids of this project's jobs that Slurm knows, ended ones included, past clusterctl."""
    lines = box.command("squeue", "-h", "-t", "all", "-o", "%i %Z").stdout.splitlines()
    found = [line.partition(" ") for line in lines]
    return [job_id for job_id, _, folder in found if folder.startswith(f"{project.folder}/")]


def last_job(run_dir: Path) -> dict[str, Any]:
    """The newest hand-over in the record of a run."""
    record = json.loads((run_dir / "record.json").read_text(encoding="utf-8"))
    return dict(record["jobs"][-1])


def with_commands(project: Project, folder: Path) -> Project:
    """The same project in a terminal where the commands of ``folder`` come before the real ones."""
    return replace(project, env={**project.env, "PATH": f"{folder}:{project.env['PATH']}"})
