"""Which rows are held out, and how several sources become one: always the same for the same seed.

All of it works on rows as they come, so that they need not fit into memory.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from trainers.errors import InputProblem

log = logging.getLogger(__name__)

T = TypeVar("T")

BLOCK = 1000
"""Rows among which the held-out share is drawn exactly."""


def split(rows: Iterable[T], share: float, seed: int, *, held_out: bool) -> Iterator[T]:
    """Either the held-out share of the rows, or all others, in their order.

    Drawn at random from every 1000 rows in turn, and from the first ones at least one; without a share all rows
    are training rows. Raises InputProblem when there is one row alone.
    """
    if not share:
        yield from () if held_out else rows
        return
    dice = random.Random(seed)  # noqa: S311  (no secret)
    for number, block in enumerate(_blocks(rows)):
        count = round(len(block) * share)
        if number == 0:
            if len(block) == 1:
                raise InputProblem(
                    "one row cannot be split", hint="drop data.validation_split, name data.eval_files, or add rows"
                )
            count = min(max(1, count), len(block) - 1)
        chosen = set(dice.sample(range(len(block)), count))
        yield from (row for index, row in enumerate(block) if (index in chosen) == held_out)


def _blocks(rows: Iterable[T]) -> Iterator[list[T]]:
    block: list[T] = []
    for row in rows:
        block.append(row)
        if len(block) == BLOCK:
            yield block
            block = []
    if block:
        yield block


def mix(sources: Sequence[Iterable[T]], names: Sequence[str], probabilities: Sequence[float], seed: int) -> Iterator[T]:
    """Rows of several sources, each drawn with its probability.

    Ends with the first source that has no row left, as datasets.interleave_datasets does by default: no row comes
    twice, and the shares hold to the end. What is used of each source goes to the log.
    """
    dice = random.Random(seed)  # noqa: S311  (no secret)
    open_sources = [iter(source) for source in sources]
    taken = [0] * len(sources)
    while True:
        (drawn,) = dice.choices(range(len(sources)), probabilities)
        try:
            row = next(open_sources[drawn])
        except StopIteration:
            break
        taken[drawn] += 1
        yield row
    used = ", ".join(f"{count} of {name}" for count, name in zip(taken, names, strict=True))
    log.info("mixture: rows used: %s; it ends with the last row of %s", used, names[drawn])
