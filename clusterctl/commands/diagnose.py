"""clusterctl diagnose: why a run failed, or what a log complains of."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from clusterctl import settings
from clusterctl.commands.options import Json
from clusterctl.errors import NotFound
from clusterctl.paths import is_file
from clusterctl.result import Result

EXAMPLES = """
Examples:

  clusterctl diagnose last

  clusterctl diagnose slurm-1234.err
"""


def diagnose(
    what: Annotated[
        str, typer.Argument(metavar="RUN|FILE", help="A run as for the other commands, or any log file.")
    ] = "last",
    json: Json = False,
) -> Result:
    """Find the earliest root cause of a failure. Quotes the line that shows it, and says what to do next."""
    from clusterctl.runs import diagnose as use
    from clusterctl.runs import find
    from clusterctl.views import diagnosed

    path, site = Path(what), settings.load()
    try:
        found = use.file(path) if is_file(path) else use.run(find.one(site.output_root, what), site)
    except NotFound as e:
        if "/" in what or os.path.lexists(what):
            words = f"{what} is no run, and no log that can be looked at"
            raise NotFound(words, hint="name a run or a text file") from e
        raise NotFound(e.message, hint=e.hint or "name a run or a file") from e
    return Result("diagnose", found, lambda: diagnosed.view(found))
