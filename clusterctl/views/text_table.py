"""Plain tables, for what has to be there at once: to load rich takes longer than many a command."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from itertools import zip_longest
from textwrap import wrap
from unicodedata import combining, east_asian_width

_GAP = "  "
_NARROWEST = 16
"""Columns that a folded cell keeps at least."""


def facts(rows: Sequence[tuple[str, str]]) -> str:
    """Names and what they are, one a line."""
    return table((), rows)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns side by side, the widest ones folded until all fit. A name that ends in '>' is of numbers.

    The first column holds names, which people copy: it is folded only where it would take half of the terminal.
    """
    names = [name.removesuffix(">") for name in header]
    lines = [*([names] if header else []), *([plain(cell) for cell in row] for row in rows)]
    if not lines:
        return ""
    widths = _narrowed([max(_cells(line[column]) for line in lines) for column in range(len(lines[0]))])
    numbers = [name.endswith(">") for name in header] or [False] * len(widths)
    text = []
    for line in lines:
        folded = [
            wrap(cell, max(1, wide), break_on_hyphens=False) or [""] for cell, wide in zip(line, widths, strict=True)
        ]
        for part in zip_longest(*folded, fillvalue=""):
            cells = zip(part, widths, numbers, strict=True)
            text.append(_GAP.join(_padded(*cell) for cell in cells).rstrip())
    return "\n".join(text) + "\n"


def _narrowed(widths: list[int]) -> list[int]:
    """Widths with which a line fits the terminal, if that can be."""
    names, *rest = widths
    room = width() - len(_GAP) * len(rest)
    if names > room // 2:
        rest, names, kept = [names, *rest], 0, []
    else:
        kept = [names]
    while names + sum(rest) > room and max(rest, default=0) > _NARROWEST:
        widest = rest.index(max(rest))
        others = sorted(rest)[-2] if len(rest) > 1 else 0
        # Down to the next widest, or as far as it has to go.
        most = rest[widest] - (names + sum(rest) - room)
        rest[widest] = max(_NARROWEST, min(others, rest[widest] - 1), most)
    return [*kept, *rest]


def _padded(cell: str, wide: int, number: bool) -> str:
    blanks = " " * (wide - _cells(cell))
    return blanks + cell if number else cell + blanks


def plain(text: str) -> str:
    """Text from outside as it is: no control character reaches the terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def width() -> int:
    """Columns of the terminal. Into a pipe or a file nothing is folded."""
    if sys.stdout.isatty() or "COLUMNS" in os.environ:
        return shutil.get_terminal_size().columns
    return 400


def _cells(text: str) -> int:
    """Columns that a terminal takes for it."""
    if text.isascii():
        return len(text)
    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)
