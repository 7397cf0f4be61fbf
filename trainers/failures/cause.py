"""The noun of the table of failures: a cause, how a log shows it, and what follows from it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Weight = Literal["root", "scheduler", "vague", "echo"]
"""How much a sign says. ``root``: this ended the run. ``scheduler``: Slurm's word, true but not always the
beginning. ``vague``: something went wrong, and the line alone does not say what. ``echo``: what other processes
say when one of them has died; it is the cause only when nothing else is found."""

Policy = Literal["resume", "retry", "stop"]
"""What a job does by itself. ``resume``: go on, as often as there is progress. ``retry``: go on, at most twice.
``stop``: nothing; it would fail again, or somebody wanted it so."""


@dataclass(frozen=True)
class Sign:
    """A way in which a log shows a cause.

    ``needles`` are texts, one of which stands in every line that ``pattern`` matches: they are what a search through
    gigabytes looks for. Both are case-sensitive. Without a pattern the needle itself is the sign.
    """

    needles: tuple[str, ...]
    pattern: re.Pattern[str] | None = None

    def matches(self, line: str) -> bool:
        """Whether the line shows it."""
        return any(needle in line for needle in self.needles) and (not self.pattern or bool(self.pattern.search(line)))


@dataclass(frozen=True)
class Cause:
    """An entry of the table. ``remedy`` says what to do next; ``{run}`` in it stands for the run."""

    name: str
    title: str
    remedy: str
    policy: Policy = "stop"
    weight: Weight = "root"
    node: bool = False
    """Whether the node is to blame, so that another attempt should avoid it."""
    signs: tuple[Sign, ...] = ()


def sign(*needles: str, pattern: str = "") -> Sign:
    """A sign, its pattern compiled when it is first looked at by Python's own cache."""
    return Sign(needles, re.compile(pattern) if pattern else None)
