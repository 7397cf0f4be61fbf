"""The nouns of a job. Frozen, made of the standard library, without behaviour beyond derivation.

Those of the machines stand in ``hardware``, those of a run in ``record`` and ``status``: a command loads what it needs.

Words are Slurm's for Slurm's things. Times are Unix seconds (UTC), durations seconds, sizes bytes,
unless a name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal

SchedulerName = Literal["slurm", "local"]


class JobState(StrEnum):
    """Slurm's job states in Slurm's spelling (squeue(1)), and the one Slurm does not have: UNKNOWN.

    UNKNOWN means that nobody who could know the job answered. It is never a success and never a failure.
    """

    PENDING = "PENDING"
    CONFIGURING = "CONFIGURING"
    RUNNING = "RUNNING"
    COMPLETING = "COMPLETING"
    SUSPENDED = "SUSPENDED"
    REQUEUED = "REQUEUED"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMEOUT = "TIMEOUT"
    PREEMPTED = "PREEMPTED"
    NODE_FAIL = "NODE_FAIL"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    BOOT_FAIL = "BOOT_FAIL"
    DEADLINE = "DEADLINE"
    UNKNOWN = "UNKNOWN"

    @property
    def waiting(self) -> bool:
        """The job has not begun (or waits to begin again)."""
        return self in _WAITING

    @property
    def active(self) -> bool:
        """The job waits or runs: more can still happen to it."""
        return self in _WAITING or self in _RUNNING

    @property
    def final(self) -> bool:
        """The job has ended. UNKNOWN is neither active nor final."""
        return not self.active and self is not JobState.UNKNOWN


_WAITING = frozenset({JobState.PENDING, JobState.CONFIGURING, JobState.REQUEUED})
_RUNNING = frozenset({JobState.RUNNING, JobState.COMPLETING, JobState.SUSPENDED})


@dataclass(frozen=True)
class Resources:
    """What one job asks of a scheduler. ``gpu_ids`` (local only) are NVML indices or UUIDs chosen by hand.

    ``gpu_memory`` is what one card must be able to hold: a smaller card is no candidate. ``mixed`` says that cards
    of several models, named by ``gpu_ids``, are wanted all the same.
    """

    nodes: int = 1
    gpus_per_node: int = 0
    gpu_type: str | None = None
    cpus_per_task: int = 1
    mem: str | None = None
    time_limit: int = 3600
    signal_lead: int = 120
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gpu_request: Literal["gpus-per-node", "gres"] = "gpus-per-node"
    gpu_ids: tuple[str, ...] = ()
    gpu_memory: int | None = None
    mixed: bool = False


@dataclass(frozen=True)
class Submission:
    """One hand-over to a scheduler: run ``job.sh`` in ``run_dir``; ``token`` is unique per hand-over."""

    run_id: str
    run_dir: Path
    name: str
    token: str
    resources: Resources
    after: tuple[str, ...] = ()
    """Job ids (of the same scheduler) that must end well first."""
    sweep: str = ""
    """The sweep that the run belongs to; its directory lies beside the run's."""
    parallel: int | None = None
    """So many runs of the sweep at a time; None: as many as there is room for."""
    tasks: tuple[int, ...] = ()
    """Slurm: these runs of the sweep as one job array. ``run_dir`` is the sweep's then."""


@dataclass(frozen=True)
class JobRef:
    """What identifies a job beyond doubt: ids are recycled, so the time and the token belong to it."""

    job_id: str
    token: str
    submitted_at: float
    run_dir: Path


@dataclass(frozen=True)
class Job:
    """A job as a scheduler sees it now. ``reason`` is the scheduler's own words."""

    job_id: str
    state: JobState
    reason: str = ""
    exit_code: int | None = None
    signal: int | None = None
    where: str = ""
    submitted_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    time_limit: int | None = None
    restarts: int = 0
    source: str = ""


@dataclass(frozen=True)
class QueueStart:
    """When a scheduler thinks that it would start a job: an estimate, which binds nobody. Unix seconds.

    ``at`` is None where nobody can say; ``refused`` where the scheduler would not take the job at all. ``why`` has the
    words of both.
    """

    at: float | None
    why: str = ""
    refused: bool = False


@dataclass(frozen=True)
class Activation:
    """What a node's shell does before Python runs, from the site file."""

    modules: tuple[str, ...] = ()
    kind: Literal["none", "conda", "venv", "uv", "python"] = "none"
    target: str = ""
    """conda: environment; venv and uv: folder; python and none: the program."""
    env: tuple[tuple[str, str], ...] = ()
    secrets_file: str = ""
    secret_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """Everything that the script says, decided. ``render`` adds nothing to it."""

    name: str
    scheduler: SchedulerName
    resources: Resources
    activation: Activation
    launcher: Literal["python", "torchrun", "accelerate", "deepspeed"]
    zero: bool
    processes_per_node: int
    version: str
    ray_start_timeout: int | None = None
    """Engine verl: seconds until all nodes have to be part of Ray. None: another engine, no Ray."""
    mail: str = ""
    """Whom Slurm writes at the end, at a failure and at a requeue; empty: nobody."""

    @property
    def world_size(self) -> int:
        """Processes in all."""
        return self.resources.nodes * self.processes_per_node
