"""From steps to seconds: the arithmetic that plan, test and status share. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def training(steps: int, seconds_per_step: float) -> float:
    """Seconds of so many steps."""
    return max(0, steps) * seconds_per_step


def of(lines: Sequence[Mapping[str, Any]], attempt: int) -> float | None:
    """Seconds of a step by the clock, with the evaluations and checkpoints that fell in between.

    ``lines`` are those of ``metrics.jsonl``; only the present attempt counts. None before its second line.
    """
    own = [line for line in lines if line.get("attempt") == attempt and "loss" in line and not line.get("result")]
    marks = [(line["step"], when) for line in own if isinstance(when := line.get("time"), int | float)]
    if len(marks) < 2:
        return None
    (first, began), *_, (last, now) = marks
    return (now - began) / (last - first) if last > first and now > began else None
