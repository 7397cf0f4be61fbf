"""What is known of GPU types before any is at hand: one data file, read by the planner and by the trainers.

The standard library and YAML only. What NVML measured of a card beats what stands here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GpuType:
    """A type of GPU. Sizes in bytes, speeds in FLOP/s (dense, without sparsity) and bytes/s. Unknown is None.

    ``usable`` is what a process can fill: ``memory`` less what driver and ECC keep back.
    """

    name: str
    """The word of GRES and of profiles: a800, a40, h100."""
    memory: int
    usable: int
    bf16: float | None
    fp16: float | None
    fp8: float | None
    fp32: float | None
    bandwidth: float | None
    compute_capability: tuple[int, int] | None
    link: str
    """What joins two cards of a node: nvlink, pcie."""
    link_bandwidth: float | None
    """Bytes/s of one card to another, both directions together, as the data sheet counts."""
    inferred: tuple[str, ...] = ()
    """Names of the fields that no source states and that were concluded from a like card."""
    source: str = ""

    @property
    def half(self) -> float | None:
        """FLOP/s at the best half precision for training: bf16, else fp16."""
        return self.bf16 or self.fp16
