"""What ``init`` and ``doctor`` can see of a machine and its cluster. Nouns, and no key or password among them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from clusterctl.hardware import Machine, Node


@dataclass(frozen=True)
class Partition:
    """A partition as ``scontrol show partition`` has it. ``allowed`` is False where its rules keep this user out."""

    name: str
    state: str
    """UP, or what keeps jobs from starting there: DOWN, DRAIN, INACTIVE."""
    default: bool
    allowed: bool
    tier: int
    """PriorityTier: jobs of a higher one go first and, on many clusters, push those of a lower one out."""
    max_time: int | None
    """Seconds; None: no limit."""
    max_nodes: int | None
    """Of one job; None: no limit."""

    @property
    def open(self) -> bool:
        """Jobs of this user can start there."""
        return self.allowed and self.state == "UP"


@dataclass(frozen=True)
class SlurmSite:
    """A cluster. ``accounts`` and ``qos`` are what accounting says of this user; empty where it says nothing."""

    name: str
    version: str
    nodes: tuple[Node, ...]
    partitions: tuple[Partition, ...]
    gpus_per_node: bool
    """sbatch takes ``--gpus-per-node``: the cluster counts GPUs itself (``SelectType=select/cons_tres``)."""
    account: str | None = None
    accounts: tuple[str, ...] = ()
    qos: tuple[str, ...] = ()


@dataclass(frozen=True)
class Python:
    """An environment that could train: what a site file says of it, and what of ``trainers`` and ``torch`` it has."""

    kind: Literal["none", "conda", "venv", "uv", "python"]
    target: str
    """The name or path that goes with the kind; the program for ``none``."""
    seen: str
    """In words, where it was seen."""
    has: tuple[str, ...] = ()

    @property
    def trains(self) -> bool:
        """It has all that a job needs."""
        return {"trainers", "torch"} <= set(self.has)


@dataclass(frozen=True)
class Scratch:
    """A folder for large files that may be written, and its free bytes."""

    path: str
    seen: str
    free: int


@dataclass(frozen=True)
class Hub:
    """The Hugging Face hub as this machine sees it. ``reached`` is None where it was not tried."""

    endpoint: str | None
    """What HF_ENDPOINT says, without any password in it."""
    reached: bool | None
    home: str | None
    offline: bool


@dataclass(frozen=True)
class Surroundings:
    """Everything together. A part that could not be asked is None or empty, and ``problems`` says why."""

    hostname: str
    slurm: SlurmSite | None
    machine: Machine | None
    no_machine: str
    """Why no GPU of this machine can be seen; empty where the driver answers."""
    modules: tuple[str, ...]
    loaded: tuple[str, ...]
    pythons: tuple[Python, ...]
    """The first one is the one to take."""
    conda_environments: tuple[str, ...]
    scratch: tuple[Scratch, ...]
    hub: Hub
    keys: tuple[str, ...]
    """Names of the variables with trackers' and hubs' keys that are set."""
    problems: tuple[str, ...] = field(default=())
