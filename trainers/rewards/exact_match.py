"""Reward ``exact_match``: the answer is the expected one."""

from __future__ import annotations

from typing import Any

from trainers.rewards.text import expected, tagged, words_of


def exact_match(completions: list[Any], **columns: Any) -> list[float | None]:
    """1 where the answer is the expected one, else 0; None for a row that expects none.

    Any run of white space counts as one blank, and none at the ends. Of an answer with ``<answer>`` tags only
    what stands between the last of them counts.
    """
    rewards: list[float | None] = []
    for completion, answer in zip(completions, expected("exact_match", columns), strict=True):
        text = words_of(completion)
        inner = tagged(text)
        given = text if inner is None else inner
        rewards.append(None if answer is None else float(given.split() == str(answer).split()))
    return rewards
