"""What a command gives back: data for programs, a view for people. Commands never print."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

View = Callable[[], Any]
"""Builds what rich prints (or a plain string). Called only when a person is to see it."""


@dataclass(frozen=True)
class Result:
    """A finished answer."""

    command: str
    data: Any
    view: View
    exit_code: int = 0
    notes: Sequence[str] = ()
    """What the user should know beside the answer; goes to standard error."""


@dataclass(frozen=True)
class Stream:
    """An answer that comes in pieces. ``events`` yields (data, view) pairs; the last one decides the exit code."""

    command: str
    events: Iterator[Event]
    on_interrupt: str = ""
    """What to tell a person who presses Ctrl-C."""
    notes: Sequence[str] = ()
    """As those of a Result."""


@dataclass(frozen=True)
class Event:
    """A piece of a stream. ``raw`` text goes out as it is, the ``view`` through rich."""

    data: Any
    view: View | None = None
    raw: str = ""
    error_stream: bool = False
    exit_code: int = 0


@dataclass(frozen=True)
class Watch:
    """An answer asked again and again until q or Ctrl-C."""

    make: Callable[[], Result]
    every: float
