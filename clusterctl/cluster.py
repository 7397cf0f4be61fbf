"""What a cluster's GPUs are held by and waited for: nouns and their sums. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from clusterctl.hardware import Gpu, Gres, Node
from clusterctl.model import JobState

ANY_TYPE = "any"
"""In the place of a GPU type that neither the job nor its partition names."""


@dataclass(frozen=True)
class GpuJob:
    """A job of anybody that holds GPUs or waits for some. A waiting job array is one of these, with all its tasks.

    ``gpus`` are those of the whole job, all nodes and tasks together. ``expected_start`` is Slurm's own estimate in
    Unix seconds, which it makes for the first jobs of the queue only. ``run_id`` is that of a run of clusterctl's.
    ``raw_id`` is what srun knows the job by: a task of an array has a number of its own beside '7_2'.
    """

    job_id: str
    raw_id: str
    user: str
    own: bool
    state: JobState
    partitions: tuple[str, ...]
    gpus: tuple[Gres, ...]
    tasks: int = 1
    where: str = ""
    reason: str = ""
    expected_start: int | None = None
    run_id: str = ""


@dataclass(frozen=True)
class JobUse:
    """What the GPUs of an own job do on one node just now, or why that is not known."""

    job_id: str
    run_id: str
    node: str
    gpus: tuple[Gpu, ...] = ()
    problem: str | None = None


@dataclass(frozen=True)
class Queue:
    """Jobs that wait for the same type of GPU for the same reason (squeue's word for it)."""

    gpu_type: str
    reason: str
    jobs: int
    gpus: int
    own: int


def queues(jobs: Sequence[GpuJob], nodes: Sequence[Node]) -> tuple[Queue, ...]:
    """The waiting jobs by GPU type and reason, the longest queue of a type first."""
    found: dict[tuple[str, str], list[GpuJob]] = {}
    for job in jobs:
        if job.state.waiting:
            for gpu_type in {wanted_type(job, gres, nodes) for gres in job.gpus}:
                found.setdefault((gpu_type, _group(job.reason)), []).append(job)
    rows = [
        Queue(
            gpu_type,
            reason,
            sum(job.tasks for job in waiting),
            sum(gres.count for job in waiting for gres in job.gpus if wanted_type(job, gres, nodes) == gpu_type),
            sum(job.tasks for job in waiting if job.own),
        )
        for (gpu_type, reason), waiting in found.items()
    ]
    return tuple(sorted(rows, key=lambda row: (row.gpu_type, -row.jobs, row.reason)))


def wanted_type(job: GpuJob, gres: Gres, nodes: Sequence[Node]) -> str:
    """The type that a job asks for, or the only one that its partitions have."""
    if gres.gpu_type:
        return gres.gpu_type
    here = (node for node in nodes if set(job.partitions) & set(node.partitions))
    types = {one.gpu_type for node in here for one in node.gpus}
    only = types.pop() if len(types) == 1 else None
    return only or ANY_TYPE


def unseen(jobs: Iterable[GpuJob], nodes: Iterable[Node]) -> int:
    """How many GPUs are in use by jobs that Slurm does not show to us (``PrivateData=jobs``)."""
    held = sum(gres.count for job in jobs if not job.state.waiting for gres in job.gpus)
    return max(0, sum(gres.count for node in nodes for gres in node.gpus_used) - held)


def count(gpus: Collection[Gres]) -> str:
    """``4 x a800``."""
    return ", ".join(f"{gres.count} x {gres.gpu_type or 'GPU'}" for gres in gpus)


def _group(reason: str) -> str:
    """Without the names of nodes that some reasons end with."""
    return re.sub(r"^(ReqNodeNotAvail).*", r"\1", reason)
