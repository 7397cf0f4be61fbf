"""clusterctl archive: one file that explains or repeats a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clusterctl import settings
from clusterctl.commands.options import Json, Run
from clusterctl.result import Result

EXAMPLES = """
Examples:

  clusterctl archive last

  clusterctl archive sft-20261122-a3f9 for-a-colleague.tar.gz
"""


def archive(
    run: Run = "last",
    to: Annotated[Path | None, typer.Argument(metavar="FILE", help="Default: RUN.tar.gz here.")] = None,
    json: Json = False,
) -> Result:
    """Pack a run into one file, but no weights, data or keys. Records, logs, numbers, recipe and profile."""
    from clusterctl.runs import archive as use
    from clusterctl.runs import find

    site = settings.load()
    made = use.archive(find.one(site.output_root, run), to, site.site())
    keys = f"; {made.left_out} values that look like keys are blackened" if made.left_out else ""
    return Result("archive", made, lambda: f"{made.path}: {len(made.files)} files{keys}\n")
