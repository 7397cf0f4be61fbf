"""What the planner concludes, as nouns: memory in terms, time in terms, a verdict. Estimates unless said otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

TIGHT = 0.92
"""Share of a card's usable memory above which a fit is called tight: the model's error, and fragmentation."""

NOW = 60.0
"""Seconds. A start within the next minute is called 'now'."""


@dataclass(frozen=True)
class Term:
    """A line of an estimate: ``size`` in bytes, how it was reckoned with the numbers, and the source of the formula."""

    name: str
    size: int
    formula: str
    source: str


@dataclass(frozen=True)
class Memory:
    """Memory of a run at its peak: ``device`` of one GPU (the fullest), ``host`` of one node.

    ``measured_in`` is the run whose measured peak ``peak`` is; then the terms only explain it.
    """

    device: tuple[Term, ...]
    host: tuple[Term, ...]
    exact: bool = True
    """Whether the model's architecture is known; else the terms are a bound from above."""
    rough: bool = False
    """Whether the formulas were hardly held against such a run: a mixture of experts, verl (docs/memory.md)."""
    peak: int | None = None
    measured_in: str | None = None

    @property
    def total(self) -> int:
        """Bytes of one GPU: what was measured, else the sum of the terms."""
        return self.peak if self.peak is not None else sum(term.size for term in self.device)

    @property
    def host_total(self) -> int:
        """Bytes of one node."""
        return sum(term.size for term in self.host)


@dataclass(frozen=True)
class Span:
    """A line of a duration, in seconds."""

    name: str
    seconds: float
    basis: str


@dataclass(frozen=True)
class Duration:
    """How long a run takes once it has its GPUs. ``measured_in`` is the run whose speed it rests on."""

    spans: tuple[Span, ...]
    efficiency: float | None = None
    """Model FLOPs over peak that was assumed or measured; see trainers/runtime/compute.py."""
    measured_in: str | None = None
    seconds_per_step: float | None = None

    @property
    def total(self) -> float:
        """Seconds."""
        return sum(span.seconds for span in self.spans)


class Fit(StrEnum):
    """Whether a run fits its cards."""

    FITS = "fits"
    TIGHT = "tight"
    NOT = "does not fit"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Verdict:
    """``why`` has the number that decides: 'needs 61.2 GiB, an A40 has 44.4'."""

    fit: Fit
    why: str
    needs: int | None = None
    has: int | None = None
    """Bytes of one GPU; of a run without one, of the node."""
    host_needs: int | None = None
    host_has: int | None = None
    """Bytes of the node, where they are too few for a run on GPUs."""


@dataclass(frozen=True)
class Point:
    """What an earlier run or test measured: bytes of the fullest GPU, seconds of a step."""

    run_id: str
    fingerprint: str
    gpu: str
    """Type as in ``GpuType.name``; 'cpu' without one."""
    peak_memory: int | None
    seconds_per_step: float | None
    tokens_per_second: float | None
    mfu: float | None
    stage: str
    model_type: str
    adapter: str
