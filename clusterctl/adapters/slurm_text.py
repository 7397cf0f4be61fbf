"""Reading what Slurm's commands print. Pure: text in, nouns out; a line that makes no sense is skipped.

Format strings, not ``--json``: JSON is ten times slower on a long queue, its shape changes with every release, and
on 22.05 it reports an empty queue with exit code 0 when the controller is dead. Fields are parted by the ASCII unit
separator and the free text comes last, because job names, comments and paths may hold anything.

Slurm prints times as Unix seconds when ``SLURM_TIME_FORMAT`` is ``%s``: no time zone, no summer time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from clusterctl.hardware import Gres, Node
from clusterctl.model import Job, JobRef, JobState

SEPARATOR = "\x1f"
COMMENT_PREFIX = "clusterctl"

CLOCK_SKEW = 300.0
"""Seconds that the controller's clock may be behind ours: a job of ours cannot look older than this."""

_QUEUE_FIELDS = (
    "JobArrayID",
    "State",
    "exit_code",
    "RestartCnt",
    "SubmitTime",
    "StartTime",
    "EndTime",
    "TimeLimit",
    "UserName",
    "NodeList",
    "Reason",
    "WorkDir",
    "Comment",
)
# In squeue's and sinfo's -O a colon without a width means "whole"; what follows the colon is printed behind the field.
QUEUE_FORMAT = f":{SEPARATOR},".join(_QUEUE_FIELDS) + ":"

_RECORD_FIELDS = (
    "JobID",
    "State",
    "ExitCode",
    "Submit",
    "Start",
    "End",
    "TimelimitRaw",
    "User",
    "NodeList",
    "WorkDir",
    "Comment",
)
RECORD_FORMAT = ",".join(_RECORD_FIELDS)

_NODE_FIELDS = (
    "NodeList",
    "StateLong",
    "Gres",
    "GresUsed",
    "Partition",
    "CPUs",
    "Memory",
    "Time",
    "Available",
    "Features",
    "Reason",
)
NODE_FORMAT = f":{SEPARATOR},".join(_NODE_FIELDS) + ":"

_OTHER_WORDS = {
    "SIGNALING": JobState.RUNNING,
    "RESIZING": JobState.RUNNING,
    "STAGE_OUT": JobState.COMPLETING,
    "STOPPED": JobState.SUSPENDED,
    "REQUEUE_FED": JobState.REQUEUED,
    "REQUEUE_HOLD": JobState.REQUEUED,
    "RESV_DEL_HOLD": JobState.PENDING,
    "SPECIAL_EXIT": JobState.PENDING,
    "POWER_UP_NODE": JobState.CONFIGURING,
}
"""States of squeue(1) that say nothing more to us than one of ours. REVOKED is not here: it runs elsewhere."""

_TOKEN = re.compile(rf"{COMMENT_PREFIX}:[^:\s]*:([^:\s,;|]+)")
_NOTHING = frozenset({"", "None", "(null)", "N/A", "None assigned", "none"})


@dataclass(frozen=True)
class Row:
    """A job as squeue or sacct prints it, with what tells whose it is. ``token`` is empty in foreign jobs."""

    job: Job
    user: str
    folder: str
    token: str

    def belongs_to(self, ref: JobRef, user: str) -> bool:
        """It is the very job that ``ref`` means, not another one under a recycled id.

        The token decides where Slurm kept our comment; else user, submit time and the name of the work directory,
        which for task N of an array SWEEP stands for the run SWEEP-N.
        A requeued job counts as submitted anew, so a later time is no objection.
        """
        if self.job.job_id != ref.job_id:
            return False
        if self.token:
            return self.token == ref.token
        submitted = self.job.submitted_at
        return (
            self.user == user
            and submitted is not None
            and submitted >= ref.submitted_at - CLOCK_SKEW
            and "-".join([PurePosixPath(self.folder).name, *self.job.job_id.split("_")[1:]]) == ref.run_dir.name
        )


# --- values -----------------------------------------------------------------------------------


def parse_state(text: str) -> JobState:
    """'CANCELLED by 1001' -> CANCELLED. A word that Slurm has learnt since is UNKNOWN."""
    words = text.split()
    word = words[0].rstrip("+").upper() if words else ""
    if word in _OTHER_WORDS:
        return _OTHER_WORDS[word]
    try:
        return JobState(word)
    except ValueError:
        return JobState.UNKNOWN


def parse_exit(text: str) -> tuple[int | None, int | None]:
    """Exit code and signal, of sacct's '7:0' or of squeue's wait status '1792'. A signal of 0 is None."""
    if match := re.fullmatch(r"([0-9]{1,9}):([0-9]{1,9})", text):
        code, signal = int(match[1]), int(match[2])
    elif re.fullmatch(r"[0-9]{1,9}", text):
        code, signal = int(text) >> 8, int(text) & 0x7F
    else:
        return None, None
    return code, signal or None


def parse_duration(text: str) -> int | None:
    """Seconds of 'D-HH:MM:SS', 'HH:MM:SS' or 'MM:SS'. None for UNLIMITED, INVALID, NOT_SET."""
    match = re.fullmatch(r"(?:([0-9]{1,9})-)?(?:([0-9]{1,9}):)?([0-9]{1,9}):([0-9]{1,9})", text)
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def parse_gres(text: str) -> tuple[Gres, ...]:
    """The GPUs of a GRES string, by type: 'gpu:a800:3(IDX:0-2),gpu:2,shard:8' -> a800 x 3, any type x 2."""
    counts: dict[str | None, int] = {}
    for entry in re.sub(r"\([^()]*\)", "", text).split(","):
        kind, *rest = entry.strip().removeprefix("gres/").split(":")
        if kind != "gpu":
            continue
        count = _number(rest[-1]) if rest else 1
        gpu_type = ":".join(rest if count is None else rest[:-1]) or None
        counts[gpu_type] = counts.get(gpu_type, 0) + (1 if count is None else count)
    return tuple(Gres(gpu_type, count) for gpu_type, count in counts.items() if count)


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,15}", text) else None


def _text(text: str) -> str:
    return "" if text.strip() in _NOTHING else text.strip()


# --- squeue, sacct, sinfo, sbatch -------------------------------------------------------------


def split_lines(text: str) -> list[str]:
    """Lines as Slurm means them; ``str.splitlines`` would also cut at characters that a path may hold."""
    return [line for line in text.split("\n") if SEPARATOR in line]


def parse_queue_line(line: str) -> Row | None:
    """A line of ``squeue -O QUEUE_FORMAT``; None when it is something else."""
    parts = line.split(SEPARATOR, len(_QUEUE_FIELDS) - 1)
    if len(parts) != len(_QUEUE_FIELDS):
        return None
    job_id, state, status, restarts, submit, start, end, limit, user, nodes, reason, folder, comment = parts
    job = _job(job_id, parse_state(state), status, (submit, start, end), parse_duration(limit), nodes, "squeue")
    if job.state is JobState.CANCELLED and reason != "DependencyNeverSatisfied":
        reason = ""  # it says why the job waited, not why it was cancelled
    job = replace(job, reason=_text(reason), restarts=_number(restarts) or 0)
    return Row(job, user, folder, _token(comment, job_id))


def parse_record_line(line: str) -> Row | None:
    """A line of ``sacct -P -o RECORD_FORMAT``; None when it is something else."""
    parts = line.split(SEPARATOR, len(_RECORD_FIELDS) - 1)
    if len(parts) != len(_RECORD_FIELDS):
        return None
    job_id, state, status, submit, start, end, minutes, user, nodes, folder, comment = parts
    limit = _number(minutes)
    job = _job(job_id, parse_state(state), status, (submit, start, end), limit * 60 if limit else None, nodes, "sacct")
    return Row(job, user, folder, _token(comment, job_id))


def _job(
    job_id: str,
    state: JobState,
    status: str,
    times: tuple[str, str, str],
    time_limit: int | None,
    nodes: str,
    source: str,
) -> Job:
    code, signal = parse_exit(status) if state.final else (None, None)
    where = _text(nodes)
    began = where != "" and not state.waiting  # else Slurm prints a guess, or the time of the cancellation
    return Job(
        job_id=job_id,
        state=state,
        exit_code=code,
        signal=signal,
        where=where,
        submitted_at=_number(times[0]),
        started_at=_number(times[1]) if began else None,
        ended_at=_number(times[2]) if state.final else None,  # of a running job it is its time limit
        time_limit=time_limit,
        source=source,
    )


def _token(comment: str, job_id: str) -> str:
    """The token of a hand-over. The tasks of an array have one comment; each is ``token.task`` to us."""
    match = _TOKEN.search(comment)
    task = job_id.partition("_")[2]
    return "" if match is None else f"{match[1]}.{task}" if task else match[1]


def comment_of(token: str) -> str:
    """The part of a token that stands in the comment."""
    return token.partition(".")[0]


def newest_record(rows: Iterable[Row]) -> Row | None:
    """The last of a job's accounting records. Every requeue has left one before it."""
    records = sorted(rows, key=lambda row: row.job.submitted_at or 0)
    if not records:
        return None
    return replace(records[-1], job=replace(records[-1].job, restarts=len(records) - 1))


def parse_nodes(text: str) -> tuple[Node, ...]:
    """The nodes in ``sinfo -N -O NODE_FORMAT``, which repeats a node for each of its partitions."""
    nodes: dict[str, Node] = {}
    for line in split_lines(text):
        parts = line.split(SEPARATOR, len(_NODE_FIELDS) - 1)
        if len(parts) != len(_NODE_FIELDS):
            continue
        name, state, gres, used, partition, cpus, mebibytes, limit, available, features, reason = parts
        if name not in nodes:
            state = re.sub(r"\$", "+maint", state.lower())  # sinfo's mark for a node in a maintenance reservation
            memory = _number(mebibytes)
            nodes[name] = Node(
                name,
                state,
                (),
                parse_gres(gres),
                parse_gres(used),
                _text(reason),
                cpus=_number(cpus),
                memory=memory and memory * 1024**2,
                features=tuple(word for word in _text(features).split(",") if word),
            )
        nodes[name] = _in_partition(nodes[name], partition, parse_duration(limit), available)
    return tuple(nodes.values())


def _in_partition(node: Node, word: str, max_time: int | None, available: str) -> Node:
    """The node with one partition more. sinfo marks the default one with a star."""
    name = word.removesuffix("*")
    return replace(
        node,
        partitions=(*node.partitions, name),
        max_times=(*node.max_times, max_time),
        closed=node.closed if available == "up" else (*node.closed, name),
        default_partition=name if name != word else node.default_partition,
    )


_START = re.compile(r"Job \d+ to start at (\d+) ")


def parse_start(text: str) -> int | None:
    """Unix seconds in the answer of ``sbatch --test-only``, which stands on standard error."""
    match = _START.search(text)
    return int(match[1]) if match else None


def array(tasks: Sequence[int], parallel: int | None) -> str:
    """Tasks of an array as sbatch reads them: '0-3,7%2' for at most two of them at a time."""
    parts: list[list[int]] = []
    for task in sorted(tasks):
        if parts and task == parts[-1][-1] + 1:
            parts[-1].append(task)
        else:
            parts.append([task])
    words = (f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)
    return ",".join(words) + (f"%{parallel}" if parallel else "")


def parse_submitted(text: str) -> str | None:
    """The job id in the answer of ``sbatch --parsable``: 'ID' or 'ID;cluster', below whatever a site's plug-in says."""
    for line in reversed(text.split("\n")):
        if match := re.fullmatch(r"([0-9]+)(;\S+)?", line.strip()):
            return match[1]
    return None
