"""What there is to run on, as the planner sees it: one machine, or a Slurm cluster."""

from __future__ import annotations

from dataclasses import dataclass

from clusterctl.model import SchedulerName


@dataclass(frozen=True)
class Offer:
    """GPUs of one type that can be had together. ``partition`` is Slurm's; None on one machine.

    ``usable`` are the bytes that one card can be filled with, None where the type is not known; ``measured`` says
    that NVML told them. ``out`` counts cards that take no work now (drained, broken), ``why_out`` says why.
    """

    gpu_type: str
    usable: int | None
    nodes: int
    gpus_per_node: int
    """On the largest node that takes work."""
    total: int
    free: int
    partition: str | None = None
    measured: bool = False
    out: int = 0
    why_out: str = ""
    cpus_per_node: int | None = None
    host_memory: int | None = None
    """Bytes of memory of the smallest such node."""
    max_time: int | None = None
    """Seconds, the partition's limit."""


@dataclass(frozen=True)
class Inventory:
    """``problem`` says why nothing is known: no driver, no answer. Then ``offers`` is empty.

    ``misled``: what the site file says of a partition that is not where the GPUs are, a sentence each.
    """

    scheduler: SchedulerName
    offers: tuple[Offer, ...]
    problem: str = ""
    misled: tuple[str, ...] = ()

    def of_type(self, gpu_type: str) -> tuple[Offer, ...]:
        """The offers of one type of GPU."""
        return tuple(offer for offer in self.offers if offer.gpu_type == gpu_type)
