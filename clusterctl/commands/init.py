"""clusterctl init: look around and write a site file."""

from __future__ import annotations

from typing import Annotated

import typer

from clusterctl import output
from clusterctl.commands.options import Json
from clusterctl.errors import UsageProblem
from clusterctl.result import Result

EXAMPLES = """
Examples:

  clusterctl init

  clusterctl init --yes
"""


def init(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Overwrite a site file without asking.")] = False,
    json: Json = False,
) -> Result:
    """Look around and write clusterctl.yaml. Partitions, modules, Python, scratch, hub; every key explained."""
    from clusterctl.runs import site_file as use

    made = use.draft()
    asks = made.before is not None and made.changed and not yes
    if asks and (json or not output.can_ask()):
        raise UsageProblem(
            f"{made.path} is there and would change", hint="--yes overwrites it; on a terminal you see the difference"
        )
    written = made.changed and (not asks or output.confirm(made.diff, f"Overwrite {made.path}?"))
    saved = use.write(made) if written else None
    data = {
        "path": made.path,
        "written": written,
        "changed": made.changed,
        "saved": saved,
        "found": {one.key: one.value for one in made.chosen if one.value is not None},
        "kept": made.kept,
        "notes": made.notes,
    }

    def show() -> object:
        from clusterctl.views import site_file as views

        return views.view(made, written=written, saved=saved, shown=asks)

    return Result("init", data, show)
