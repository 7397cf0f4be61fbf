"""Reward ``werewolf_verdict``: the verdict of an answer about a game of Werewolf, English or Chinese."""

from __future__ import annotations

import re
from typing import Any

from trainers.rewards.text import expected, tagged, words_of

PLAYER = re.compile(r"\bplayers?\s+(\d+)|(\d+)\s*号", re.IGNORECASE)

WORDS = {
    "nobody": "nobody",
    "无人": "nobody",
    "yes": "yes",
    "no": "no",
    "不是": "no",
    "否": "no",
    "village": "village",
    "好人": "village",
    "werewolves": "werewolves",
    "狼人": "werewolves",
    "是": "yes",
}
"""Verdicts that are no players. Longer Chinese words come before those that are part of them."""


def werewolf_verdict(completions: list[Any], **columns: Any) -> list[float | None]:
    """1 where the answer's verdict is the expected one, else 0; None for a row that expects none.

    The verdict is read from the last ``<answer>`` tags, else from the last line. It is the set of the players
    named there, or, where none is named, of the words yes, no, nobody, village and werewolves. A set, so that
    naming everybody earns nothing.
    """
    return [
        None if answer is None else float(verdict(words_of(completion)) == verdict(str(answer)))
        for completion, answer in zip(completions, expected("werewolf_verdict", columns), strict=True)
    ]


def verdict(text: str) -> frozenset[str]:
    """What an answer decides on: numbers of players, or words; empty when it decides nothing."""
    inner = tagged(text)
    lines = (text if inner is None else inner).strip().splitlines()
    last = lines[-1].lower() if lines else ""
    players = frozenset(english or chinese for english, chinese in PLAYER.findall(last))
    if players:
        return players
    found = set()
    for word, meaning in WORDS.items():
        pattern = rf"\b{word}\b" if word.isascii() else word
        last, count = re.subn(pattern, " ", last)
        if count:
            found.add(meaning)
    return frozenset(found)
