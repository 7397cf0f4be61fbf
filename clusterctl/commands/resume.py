"""clusterctl resume: go on from the newest complete checkpoint."""

from __future__ import annotations

from clusterctl import settings
from clusterctl.commands.options import Json, Run
from clusterctl.result import Result

EXAMPLES = """
Examples:

  clusterctl resume last
"""


def resume(run: Run, json: Json = False) -> Result:
    """Submit a run again that failed, was cancelled or ran out of time; it goes on where it saved last."""
    from clusterctl.runs import control, find
    from clusterctl.views import submitted

    again = control.resume(find.one(settings.load().output_root, run))
    return Result("resume", submitted.data(again), lambda: submitted.resumed(again))
