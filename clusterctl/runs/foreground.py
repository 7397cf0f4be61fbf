"""Runs in the foreground: the script of a submission, on this terminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence

from clusterctl.adapters import process
from clusterctl.errors import Unavailable, UsageProblem
from clusterctl.model import JobState, Resources
from clusterctl.runs import status, submit
from clusterctl.runs.draft import Draft
from clusterctl.runs.find import Run
from clusterctl.runs.request import Request
from clusterctl.settings import Settings
from clusterctl.status import Status


def run(drafts: Sequence[Draft], request: Request, settings: Settings, *, srun: bool) -> list[Status]:
    """Run the drafts one after the other and return how each ended; a failed one ends the pipeline.

    Raises:
        UsageProblem: ``srun`` outside an allocation.
        Unavailable: the GPUs that it needs are not free.
    """
    if srun and "SLURM_JOB_ID" not in os.environ:
        raise UsageProblem(
            "--srun works inside an allocation, and this is none", hint="salloc clusterctl run ... --srun"
        )
    ended: list[Status] = []
    for one in drafts:
        # In an allocation the cards are ours already; here others may hold them.
        with _leased(Resources() if srun else one.plan.resources, one.plan.name, hide=not srun) as (cards, leases):
            prepared = submit.prepare(one, request, settings.output_root)
            ended.append(_run(prepared, {**_environment(srun=srun), **cards}, leases))
        if ended[-1].state is not JobState.COMPLETED:
            break
    return ended


def _run(prepared: Run, environment: dict[str, str], leases: tuple[int, ...]) -> Status:
    with (prepared.run_dir / status.FOREGROUND_LOCK).open("w") as lock:
        # The kernel drops it when the job ends, however that happens: it is what status looks at.
        fcntl.flock(lock, fcntl.LOCK_EX)
        held = (lock.fileno(), *leases)
        process.run_in_foreground(["bash", "job.sh"], cwd=prepared.run_dir, env=environment, pass_fds=held)
    [now] = status.look([prepared])
    return now


@contextlib.contextmanager
def _leased(wanted: Resources, holder: str, *, hide: bool) -> Iterator[tuple[dict[str, str], tuple[int, ...]]]:
    """The variables that show the job its GPUs, and the open leases that keep other runs off them."""
    if not (wanted.gpus_per_node or wanted.gpu_ids):
        yield {"CUDA_VISIBLE_DEVICES": ""} if hide else {}, ()
        return
    from clusterctl.adapters.gpu_queue import GpuQueue

    queue = GpuQueue(wanted, holder)
    taken = queue.try_to_take()
    queue.leave()
    if isinstance(taken, str):
        raise Unavailable(taken, hint="clusterctl submit waits in line for them")
    try:
        yield {"CUDA_VISIBLE_DEVICES": ",".join(gpu.uuid or "" for gpu in taken.gpus)}, taken.fds
    finally:
        taken.release()


def _environment(*, srun: bool) -> dict[str, str]:
    """Ours; without --srun nothing of an allocation around us, since the script would start srun in it."""
    return {k: v for k, v in os.environ.items() if srun or not k.startswith("SLURM_")}
