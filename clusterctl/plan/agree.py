"""The three numbers of a batch: which of them were said, and what follows for the others. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import lcm
from typing import Any

from clusterctl.errors import UsageProblem

ROWS = "optim.train_batch_size"
BATCH = "optim.per_device_train_batch_size"
ACCUMULATION = "optim.gradient_accumulation_steps"

DEFAULT_ROWS = 16
"""Rows of an optimiser step on GPUs where nobody says anything of the batch: usual for fine-tuning."""


@dataclass(frozen=True)
class Said:
    """A value, how strong the layer is that says it, and where that is."""

    value: Any
    rank: int
    origin: str


@dataclass(frozen=True)
class Agreed:
    """``rows`` of a step. ``open``: how they are split is to be reckoned, and the numbers here are one way."""

    rows: int
    batch: int
    accumulation: int
    open: bool


def agree(said: Mapping[str, Said], processes: int, *, gpus: bool, group: int = 1) -> Agreed | None:
    """The batch that follows from what was said; None where the defaults of the schema decide, or a value is none.

    A number that a stronger layer says outdoes a weaker one; what is left open follows from the other two.

    Args:
        said: those of the three keys that somebody said.
        processes: of the whole run.
        gpus: whether it runs on GPUs, where a batch of which nothing is said is reckoned too.
        group: answers to one prompt, of which a step holds whole groups.

    Raises:
        UsageProblem: they contradict each other, or a step cannot be split evenly.
    """
    if any(isinstance(one.value, bool) or not isinstance(one.value, int) or one.value < 1 for one in said.values()):
        return None
    rows, batch, accumulation = said.get(ROWS), said.get(BATCH), said.get(ACCUMULATION)
    if not said and gpus:
        unit = lcm(processes, max(1, group))
        even = -(-DEFAULT_ROWS // unit) * unit
        return Agreed(even, even // processes, 1, open=True)
    if rows is None:
        return None
    if batch and accumulation:
        product = batch.value * accumulation.value * processes
        if rows.rank < max(batch.rank, accumulation.rank):
            return Agreed(product, batch.value, accumulation.value, open=False)
        if rows.rank > max(batch.rank, accumulation.rank) and product != rows.value:
            # Rows a card holds are the card's business, and what is accumulated follows.
            accumulation = None
    if batch and accumulation:
        product = batch.value * accumulation.value * processes
        if product != rows.value:
            raise UsageProblem(
                f"{ROWS} {rows.value} [{rows.origin}] is not {BATCH} {batch.value} [{batch.origin}] x "
                f"{ACCUMULATION} {accumulation.value} [{accumulation.origin}] x {processes} processes = {product}",
                hint="say two of the three",
            )
        return Agreed(product, batch.value, accumulation.value, open=False)
    known = batch or accumulation
    unit = processes * (known.value if known else 1)
    if rows.value % unit:
        key = f" x {BATCH if batch else ACCUMULATION} {known.value} [{known.origin}]" if known else ""
        near = sorted({max(1, rows.value // unit) * unit, -(-rows.value // unit) * unit})
        raise UsageProblem(
            f"{ROWS} {rows.value} [{rows.origin}] cannot be split evenly over "
            f"{processes} process{'es' * (processes > 1)}{key}",
            hint=f"nearest are {' and '.join(map(str, near))}",
        )
    rest = rows.value // unit
    if batch:
        return Agreed(rows.value, batch.value, rest, open=False)
    if accumulation:
        return Agreed(rows.value, rest, accumulation.value, open=False)
    return Agreed(rows.value, rest, 1, open=True)
