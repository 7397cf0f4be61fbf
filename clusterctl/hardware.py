"""The nouns of the machines: what NVML tells of this one, and Slurm of its nodes. Sizes in bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trainers.hardware import find, short_name


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
