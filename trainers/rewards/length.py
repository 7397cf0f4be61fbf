"""Reward ``length``: the answer is no longer than it may be."""

from __future__ import annotations

from typing import Any

from trainers.rewards.text import words_of

BOUND = 400
"""Characters that an answer may have where the row does not say."""


def length(completions: list[Any], **columns: Any) -> list[float | None]:
    """1 for an answer within the bound, from there falling evenly to 0 at twice the bound; 0 for an empty one.

    The bound is the row's column ``max_characters``, or 400. Characters, because words are no measure in
    Chinese and tokens none that a person can count.
    """
    bounds = columns.get("max_characters") or [None] * len(completions)
    return [_rate(len(words_of(c).strip()), int(b or BOUND)) for c, b in zip(completions, bounds, strict=True)]


def _rate(characters: int, bound: int) -> float:
    if not characters:
        return 0.0
    return min(1.0, max(0.0, 2.0 - characters / bound))
