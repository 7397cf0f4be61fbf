"""clusterctl cancel: end runs, waiting or running."""

from __future__ import annotations

from clusterctl import settings
from clusterctl.commands.options import Json, SomeRuns
from clusterctl.result import Result

EXAMPLES = """
Examples:

  clusterctl cancel last

  clusterctl cancel sft-20261122-a3f9 1234
"""


def cancel(runs: SomeRuns, json: Json = False) -> Result:
    """Cancel runs. What has ended already is left as it is and named."""
    from clusterctl.runs import control, find

    results = control.cancel(find.several(settings.load().output_root, runs))
    code = max(result.exit_code for result in results)
    return Result("cancel", results, lambda: "".join(f"{r.run_id}: {r.words}\n" for r in results), code)
