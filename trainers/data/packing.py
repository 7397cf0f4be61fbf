"""Several rows in one of a fixed length, cut nowhere: best-fit decreasing, a window of rows at a time.

Whole rows lose no context and no token; best-fit fills blocks as well as cutting does
(https://arxiv.org/abs/2404.10830). A window bounds the memory, and lets a stream be packed by the same code.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

Row = dict[str, Any]
"""``input_ids``, and ``labels`` where not all tokens carry loss: arrays of one length."""

WINDOW = 256
"""Blocks that are filled together: what is left empty is at most about one block in so many."""


def pack(rows: Iterable[Row], length: int) -> Iterator[Row]:
    """Blocks of at most ``length`` tokens. ``seq_lengths`` says how long each of the rows in a block is."""
    window: list[Row] = []
    tokens = 0
    for row in rows:
        window.append(row)
        tokens += len(row["input_ids"])
        if tokens >= WINDOW * length:
            yield from _blocks(window, length)
            window, tokens = [], 0
    yield from _blocks(window, length)


def _blocks(rows: list[Row], length: int) -> Iterator[Row]:
    for together in best_fit([len(row["input_ids"]) for row in rows], length):
        block = {name: np.concatenate([rows[index][name] for index in together]) for name in rows[0]}
        yield {**block, "seq_lengths": [len(rows[index]["input_ids"]) for index in together]}


def best_fit(lengths: list[int], room: int) -> list[list[int]]:
    """Which rows go together: indices of ``lengths``, each once, in groups that add up to at most ``room``.

    The longest first, each into the fullest group that still takes it. No length may be above ``room``.
    """
    groups: list[list[int]] = []
    # (room that is left, group), the smallest first.
    left: list[tuple[int, int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        place = bisect_left(left, (lengths[index], -1))
        if place == len(left):
            groups.append([index])
            rest, group = room - lengths[index], len(groups) - 1
        else:
            free, group = left.pop(place)
            groups[group].append(index)
            rest = free - lengths[index]
        if rest:
            insort(left, (rest, group))
    return groups
