"""Reward ``format``: the answer has the wanted form, whatever it says."""

from __future__ import annotations

import re
from typing import Any

from trainers.rewards.text import words_of

TAGS = r"(?:(?!</?answer>).)*<answer>(?:(?!</?answer>).)*(?!</?answer>)\S(?:(?!</?answer>).)*</answer>"
"""Anything, then exactly one ``<answer>`` ... ``</answer>`` that is not empty, then nothing more."""


def format_reward(completions: list[Any], **columns: Any) -> list[float | None]:
    """1 where the whole answer fits the regular expression in the row's column ``pattern``, else 0.

    Rows without a pattern are held to: anything, then one ``<answer>...</answer>`` at the end. White space
    around the answer does not count, and a dot also fits a line break.
    """
    patterns = columns.get("pattern") or [None] * len(completions)
    return [
        float(re.fullmatch(pattern or TAGS, words_of(completion).strip(), re.DOTALL) is not None)
        for completion, pattern in zip(completions, patterns, strict=True)
    ]
