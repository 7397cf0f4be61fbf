"""clusterctl resume: go on from the newest complete checkpoint."""

from __future__ import annotations

from clusterctl import settings
from clusterctl.commands.options import Json, Run, Sets
from clusterctl.errors import UsageProblem
from clusterctl.result import Result

EXAMPLES = """
Examples:

  clusterctl resume last

  clusterctl resume sft-20261122-a3f9 --set optim.per_device_train_batch_size=2
"""


def resume(run: Run, sets: Sets = None, json: Json = False) -> Result:
    """Submit an ended run again, from where it saved last. One that failed, was cancelled or ran out of time.

    Of a sweep, those of its runs that have ended without finishing. --set changes one run from here on; what its job
    or its checkpoints depend on cannot be changed.
    """
    from clusterctl.runs import control, find
    from clusterctl.views import submitted

    root = settings.load().output_root
    if members := find.sweep(root, run):
        from clusterctl.commands import sweeping

        if sets:
            raise UsageProblem(
                "--set changes one run, and this is a sweep", hint=f"name one of its runs: {members[0].record.run_id}"
            )
        return sweeping.resume(members)
    again = control.resume(find.one(root, run), sets or ())
    return Result("resume", submitted.data(again), lambda: submitted.resumed(again))
