"""Runs in the foreground: the script of a submission, on this terminal."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence

from clusterctl.adapters import process
from clusterctl.errors import UsageProblem
from clusterctl.model import JobState, Status
from clusterctl.runs import status, submit
from clusterctl.runs.find import Run
from clusterctl.settings import Settings


def run(drafts: Sequence[submit.Draft], request: submit.Request, settings: Settings, *, srun: bool) -> list[Status]:
    """Run the drafts one after the other and return how each ended; a failed one ends the chain.

    Raises:
        UsageProblem: ``srun`` outside an allocation.
    """
    if srun and "SLURM_JOB_ID" not in os.environ:
        raise UsageProblem(
            "--srun works inside an allocation, and this is none", hint="salloc --gpus=1 clusterctl run ..."
        )
    ended: list[Status] = []
    for one in drafts:
        prepared = submit.prepare(one, request, settings.output_root)
        ended.append(_run(prepared, srun=srun))
        if ended[-1].state is not JobState.COMPLETED:
            break
    return ended


def _run(prepared: Run, *, srun: bool) -> Status:
    with (prepared.run_dir / status.FOREGROUND_LOCK).open("w") as lock:
        # The kernel drops it when this process ends, however that happens: it is what status looks at.
        fcntl.flock(lock, fcntl.LOCK_EX)
        process.run_in_foreground(["bash", "job.sh"], cwd=prepared.run_dir, env=_environment(srun=srun))
    [now] = status.look([prepared])
    return now


def _environment(*, srun: bool) -> dict[str, str]:
    """Ours; without --srun nothing of an allocation around us, since the script would start srun in it."""
    return {k: v for k, v in os.environ.items() if srun or not k.startswith("SLURM_")}
