"""What reward functions read: the words of an answer, and the answer that was expected."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from trainers.errors import InputProblem

EXPECTED = ("answer", "response", "solution", "output", "completion")
"""Columns that may hold the expected answer; the first of them that the rows have counts."""

ANSWER_TAGS = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


def words_of(completion: str | Sequence[Mapping[str, Any]]) -> str:
    """The text of a completion, which TRL hands over as a list of messages, verl as a string."""
    if isinstance(completion, str):
        return completion
    return "".join(str(message["content"]) for message in completion)


def tagged(text: str) -> str | None:
    """What stands between the last ``<answer>`` and ``</answer>``; None without such tags."""
    found = ANSWER_TAGS.findall(text)
    return found[-1] if found else None


def expected(reward: str, columns: Mapping[str, Sequence[Any]]) -> Sequence[Any]:
    """The expected answer of every row. Raises InputProblem when no column holds one."""
    for name in EXPECTED:
        if name in columns:
            return columns[name]
    raise InputProblem(
        f"reward {reward} needs a column with the expected answer: {', '.join(EXPECTED)}",
        hint="name it in data.columns, for example {answer: label}",
    )
