"""clusterctl diagnose: why a run failed, or what a log complains of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clusterctl import settings
from clusterctl.commands.options import Json
from clusterctl.errors import NotFound
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
    """Find the earliest root cause of a failure, quote the line that shows it, and say what to do next."""
    from clusterctl.runs import diagnose as use
    from clusterctl.runs import find
    from clusterctl.views import diagnosed

    path, site = Path(what), settings.load()
    try:
        found = use.file(path) if path.is_file() else use.run(find.one(site.output_root, what), site)
    except NotFound as e:
        raise NotFound(e.message, hint=e.hint or "name a run or a file") from e
    return Result("diagnose", found, lambda: diagnosed.view(found))
