"""The nouns of the program. Frozen, made of the standard library, without behaviour beyond derivation.

Words are Slurm's for Slurm's things. Times are Unix seconds (UTC), durations seconds, sizes bytes,
unless a name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Literal

from trainers.hardware import find, short_name

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


# --- hardware ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class GpuProcess:
    """A process that holds memory on a GPU. ``user`` and ``command`` are None when /proc does not tell."""

    pid: int
    memory: int | None
    user: str | None = None
    command: str | None = None


@dataclass(frozen=True)
class Gpu:
    """One GPU of this machine as NVML sees it. A field that the driver does not tell is None.

    ``problem`` is set when the card cannot be used (lost, unreadable, uncorrected ECC errors ...);
    ``warnings`` do not keep it from being used (slowdown, narrow PCIe link, persistence mode off).
    ``mig`` marks a card that is split: its MIG instances follow it under the same index, each with a UUID.
    """

    index: int
    uuid: str | None
    name: str | None
    memory_total: int | None = None
    memory_used: int | None = None
    utilization: int | None = None
    temperature: int | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    bus_id: str | None = None
    compute_capability: tuple[int, int] | None = None
    mig: bool = False
    processes: tuple[GpuProcess, ...] = ()
    problem: str | None = None
    warnings: tuple[str, ...] = ()
    numa_node: int | None = None

    @property
    def gpu_type(self) -> str | None:
        """The short lower-case type as GRES calls it: 'NVIDIA A800 80GB PCIe' -> 'a800'.

        It ends with the first word that holds a digit and what makes another card of it: 'rtx2080ti'.
        """
        return None if self.name is None else short_name(self.name)

    @property
    def capacity(self) -> int | None:
        """Bytes that a process can fill: what the driver tells as total, less what it keeps of such a card."""
        known = find(self.name, self.memory_total) if self.name and self.memory_total else None
        return known.usable if known else self.memory_total

    @property
    def usable(self) -> bool:
        """A job can be given this GPU, by its UUID."""
        return self.problem is None and self.uuid is not None and not self.mig

    @property
    def busy(self) -> bool:
        """Somebody computes here: a process is known, or more memory is taken than an idle driver holds."""
        return bool(self.processes) or (self.memory_used or 0) > _IDLE_MEMORY


_IDLE_MEMORY = 1024**3
"""An idle A800 shows 583 MiB where the driver counts its own reserve as used (NVML memory, version 1)."""


PciePath = Literal["PIX", "PXB", "PHB", "NODE", "SYS"]
"""What two cards have in common on the way over PCIe, in the words of ``nvidia-smi topo -m``, nearest first: one
switch, several switches, the host bridge, the NUMA node, nothing but the system."""


@dataclass(frozen=True)
class Pair:
    """How two cards of a machine reach each other. ``nvlinks`` are active ones, direct or through NVSwitch."""

    gpus: tuple[int, int]
    """Their indices, the lower one first."""
    nvlinks: int = 0
    pcie: PciePath | None = None


@dataclass(frozen=True)
class Lease:
    """Who holds a GPU's lease: the owner of the process, and what it calls itself: a run id. Unix seconds."""

    uuid: str
    user: str
    holder: str
    since: float


@dataclass(frozen=True)
class Machine:
    """The GPUs of this machine, with the version of the driver and the newest CUDA that it supports.

    ``hidden`` counts the GPUs that this process may not open: in a job, those outside its device cgroup.
    ``pairs`` has those of which the driver tells how they are joined.
    """

    hostname: str
    driver: str | None
    cuda: str | None
    gpus: tuple[Gpu, ...]
    hidden: int = 0
    pairs: tuple[Pair, ...] = ()


@dataclass(frozen=True)
class Gres:
    """An entry of a GRES string: ``gpu:a800:4(IDX:0-1)`` is ``Gres('a800', 4)``."""

    gpu_type: str | None
    count: int


@dataclass(frozen=True)
class Node:
    """A Slurm node: GPUs by type (total and used), its states in lower case and its partitions."""

    name: str
    state: str
    partitions: tuple[str, ...]
    gpus: tuple[Gres, ...]
    gpus_used: tuple[Gres, ...]
    reason: str = ""
    cpus: int | None = None
    memory: int | None = None
    """Bytes, as slurm.conf says."""
    features: tuple[str, ...] = ()
    max_times: tuple[int | None, ...] = ()
    """Seconds, the limit of each of the partitions; None: unlimited."""
    closed: tuple[str, ...] = ()
    """Those of the partitions that start no jobs now: not 'up'."""
    default_partition: str | None = None
    """The partition of jobs that name none, where it is one of these."""

    @property
    def usable(self) -> bool:
        """New jobs can start here, now or when the present ones end."""
        flags = self.state.replace("*", "+*").lower().split("+")
        return not _OUT & {f.strip("$~#!%@^-") or f for f in flags}


_OUT = frozenset(
    {"*", "down", "drained", "draining", "drain", "maint", "fail", "failing", "inval", "future", "unknown"}
)
"""Node states (sinfo(1)) that take no work; ``*`` means that the node does not respond."""


# --- what a job asks for ----------------------------------------------------------------------


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


# --- the record of a run ----------------------------------------------------------------------


@dataclass(frozen=True)
class JobEntry:
    """One hand-over of a run to its scheduler. ``job_id`` is None while that is not confirmed."""

    token: str
    requested_at: float
    job_id: str | None = None


@dataclass(frozen=True)
class Record:
    """The lasting record of a run: what was asked, when, by whom. What happens later is never written here."""

    run_id: str
    name: str
    stage: str
    kind: Literal["train", "test"]
    recipe: str
    profile: str
    scheduler: SchedulerName
    resources: Resources
    fingerprint: str
    created_at: float
    user: str
    host: str
    command: tuple[str, ...]
    world_size: int = 1
    max_steps: int | None = None
    """Of the full run, where the recipe gives them; else ``num_train_epochs`` counts."""
    num_train_epochs: float = 0.0
    full_time_limit: int | None = None
    """Seconds that the full run would have, where this is a shorter test of it."""
    after: tuple[str, ...] = ()
    sweep: str = ""
    """The sweep that the run belongs to: its run id is ``SWEEP-N``."""
    swept: tuple[str, ...] = ()
    """``key=value`` of what the sweep varies."""
    parallel: int | None = None
    """So many runs of the sweep at a time."""
    auto_fix: tuple[str, ...] = ()
    """What the job may change by itself: oom, shorter."""
    jobs: tuple[JobEntry, ...] = ()
    schema: int = 1

    @property
    def job(self) -> JobEntry | None:
        """The newest hand-over."""
        return self.jobs[-1] if self.jobs else None


@dataclass(frozen=True)
class Progress:
    """What the trainer last wrote about itself (``progress.json``); None where it has not said."""

    phase: str = ""
    attempt: int = 0
    step: int = 0
    max_steps: int | None = None
    loss: float | None = None
    tokens_per_second: float | None = None
    seconds_per_step: float | None = None
    peak_memory: int | None = None
    updated_at: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class Attempt:
    """One start of ``job.sh``, from the begin and end lines it leaves in ``attempts.jsonl``."""

    number: int
    job_id: str
    host: str
    started_at: float
    ended_at: float | None = None
    exit_code: int | None = None
    outcome: str = ""
    decision: str = ""
    why: str = ""
    cause: str = ""
    """A name of the table of failures, where it failed or was told to stop."""


class Level(StrEnum):
    """How a run does by its metrics, worst last."""

    GOOD = "healthy"
    EARLY = "too early to say"
    WATCH = "watch"
    BAD = "in trouble"


@dataclass(frozen=True)
class Finding:
    """What the metrics of a run show: ``words`` have the numbers; ``remedy`` is empty where nothing is to do."""

    name: str
    level: Level
    words: str
    remedy: str = ""


@dataclass(frozen=True)
class Health:
    """The verdict on the metrics of a run and everything it rests on, worst first."""

    level: Level
    findings: tuple[Finding, ...] = ()

    @property
    def words(self) -> str:
        """A few words for a table."""
        if not self.findings or self.level is Level.EARLY:
            return str(self.level)
        return f"{self.level}: {self.findings[0].words}"


@dataclass(frozen=True)
class Status:
    """Everything known about a run at one look. Derived each time, never stored."""

    record: Record
    run_dir: Path
    state: JobState
    why: str
    where: str = ""
    progress: Progress = field(default_factory=Progress)
    attempts: int = 0
    started_at: float | None = None
    ended_at: float | None = None
    eta_seconds: float | None = None
    makes_time_limit: bool | None = None
    last_seen: float | None = None
    health: Health | None = None
    """What its metrics say; None where there are none."""
    cause: str = ""
    """The title of the cause of which its last attempt failed; empty where none did or nobody knows."""
    gone: bool = False
    """The scheduler answered and nothing of this run waits or runs: it is safe to submit it again."""
