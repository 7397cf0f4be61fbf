"""The cluster as everybody on it uses it: one sinfo and one squeue for all GPUs and all who want them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from clusterctl.adapters import process
from clusterctl.adapters import slurm_text as text
from clusterctl.adapters.slurm_commands import ANSWER_WITHIN, DOWN_HINT, Commands, soon
from clusterctl.adapters.slurm_words import refusal
from clusterctl.cluster import GpuJob
from clusterctl.errors import Unavailable
from clusterctl.hardware import Gres
from clusterctl.model import JobState

_FIELDS = (
    "JobArrayID",
    "JobID",
    "State",
    "UserName",
    "Partition",
    "NumNodes",
    "NumTasks",
    "tres-per-job",
    "tres-per-node",
    "tres-per-task",
    "StartTime",
    "NodeList",
    "Reason",
    "Comment",
)
_FORMAT = f":{text.SEPARATOR},".join(_FIELDS) + ":"
_STATES = "PENDING,CONFIGURING,RUNNING,SUSPENDED,COMPLETING"
_RUN = re.compile(rf"{text.COMMENT_PREFIX}:([^:\s]*):")


def gpu_jobs(commands: Commands) -> tuple[GpuJob, ...]:
    """The jobs of all users that hold GPUs or wait for some, as far as the site lets one see them: one squeue.

    Ask ``Slurm.nodes`` first, which notices a controller that hangs.

    Raises:
        Unavailable: Slurm did not answer.
    """
    done = commands.ask(["squeue", "-h", "-t", _STATES, "-O", _FORMAT], soon(ANSWER_WITHIN))
    if done.returncode != 0:
        raise Unavailable(f"squeue: {refusal(done.stderr)}", hint=DOWN_HINT)
    return parse_gpu_jobs(done.stdout, process.own_user())


def parse_gpu_jobs(answer: str, own_user: str) -> tuple[GpuJob, ...]:
    """The lines of squeue that have GPUs in them."""
    jobs = (_parse(line.split(text.SEPARATOR, len(_FIELDS) - 1), own_user) for line in text.split_lines(answer))
    return tuple(job for job in jobs if job and job.gpus)


def _parse(parts: Sequence[str], own_user: str) -> GpuJob | None:
    if len(parts) != len(_FIELDS):
        return None
    job_id, raw_id, state, user, partitions, *others = parts
    nodes, tasks, per_job, per_node, per_task, start, where, reason, comment = others
    array = array_tasks(job_id)
    gpus: dict[str | None, int] = {}
    for asked, times in ((per_job, 1), (per_node, _count(nodes)), (per_task, _count(tasks))):
        for gres in text.parse_gres(re.sub(r"\bgres:", "", asked)):
            gpus[gres.gpu_type] = gpus.get(gres.gpu_type, 0) + gres.count * times * array
    run = _RUN.search(comment)
    job_state = text.parse_state(state)
    waits = job_state is JobState.PENDING
    return GpuJob(
        job_id=job_id,
        raw_id=raw_id,
        user=user,
        own=user == own_user,
        state=job_state,
        partitions=tuple(partitions.split(",")),
        gpus=tuple(Gres(gpu_type, count) for gpu_type, count in gpus.items()),
        tasks=array,
        where="" if waits else where,
        reason=reason if waits and reason != "None" else "",
        expected_start=int(start) if waits and start.isdigit() else None,
        run_id=run[1] if run else "",
    )


def array_tasks(job_id: str) -> int:
    """How many tasks wait under one line of squeue: '7' is one, '7_[0-3,8,10-20:5%2]' is eight."""
    inside = re.search(r"_\[([^\]%]*)", job_id)
    if inside is None:
        return 1
    total = 0
    for part in inside[1].split(","):
        if match := re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part):
            first, last, step = int(match[1]), int(match[2] or match[1]), int(match[3] or 1)
            total += (last - first) // max(1, step) + 1
    return max(1, total)


def _count(word: str) -> int:
    """'2', or the lower end of '1-4'."""
    match = re.match(r"\d+", word)
    return max(1, int(match[0])) if match else 1
