"""clusterctl report: what one run asked for and used, and what would have been better."""

from __future__ import annotations

from clusterctl import settings
from clusterctl.commands.options import Json, Run
from clusterctl.result import Result

EXAMPLES = """
Examples:

  clusterctl report

  clusterctl report sft-20261123-a3f9 --json
"""


def report(run: Run = "last", json: Json = False) -> Result:
    """Show what a run asked for, and what it used.

    GPU, memory, waiting, speed against what was expected, and whether it learns. Works on a run in any
    state. Advice on other cards comes from the planner and is an estimate.
    """
    from clusterctl.runs import advise, find
    from clusterctl.runs import report as use

    site = settings.load()
    found = find.one(site.output_root, run)
    answer = advise.advise(found, use.report(found), site)

    def view() -> object:
        from clusterctl.views import report as page

        return page.view(answer)

    return Result("report", answer, view)
