"""clusterctl compare: what differs between runs, and which did best."""

from __future__ import annotations

from typing import Annotated

import typer

from clusterctl import settings
from clusterctl.commands.options import Json, SomeRuns
from clusterctl.result import Result

EXAMPLES = """
Examples:

  clusterctl compare sft-20261123-a3f9

  clusterctl compare sft-20261122-77b1 sft-20261123-a3f9 --by tokens_per_second
"""


def compare(
    runs: SomeRuns,
    by: Annotated[
        str | None, typer.Option("--by", metavar="METRIC", help="Best first. Default: eval_loss, else the last loss.")
    ] = None,
    json: Json = False,
) -> Result:
    """Compare the runs of a sweep, or any others. What differs in their configurations, and what came out so far."""
    from clusterctl.runs import compare as use
    from clusterctl.runs import find

    answer = use.compare(find.several(settings.load().output_root, runs), by)

    def view() -> object:
        from clusterctl.views import compared

        return compared.view(answer)

    return Result("compare", answer, view)
