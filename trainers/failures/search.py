"""Lines of a log in which a cause may stand, found without reading gigabytes in Python.

``grep`` with fixed strings is the only program fast enough that every machine has: Python's own search for all needles
of the table takes forty times as long. Memory stays the same however long the log is.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO

from trainers.failures import CAUSES

WINDOW = 32 * 2**20
"""Bytes at the end of a log that are searched for every needle; before them for ``COARSE`` alone."""

COARSE = (
    "rror",
    "xception",
    "CANCELLED",
    "killed",
    "=== attempt ",
    "out of memory",
    "ailed",
    "Xid",
    "No space",
    "WARN ",
)
"""Parts of nearly all needles. Searching for a dozen words costs twice what one costs, for all of them nine times."""

KEPT = 500
"""Lines that are kept of the beginning, and as many of the end: a warning may repeat a million times."""

BANNER = re.compile(r"^=== attempt (\d+) · ")
TRACEBACK = "Traceback (most recent call last)"
_AHEAD = 256 * 2**10
_STEP = re.compile(rb"(?:^|[\r\n])[^\r\n]{0,80}?(?:\bstep \d+/\d+|'loss': '?[\d.]+)")


class CannotRead(Exception):
    """The log cannot be searched; the words say why."""


@dataclass(frozen=True)
class Line:
    """A line of a log: ``offset`` in bytes is where it begins."""

    path: Path
    offset: int
    text: str


def candidates(path: Path) -> list[Line]:
    """Lines of the last attempt that hold a needle, tracebacks replaced by the line that ends them; in order.

    Raises:
        CannotRead: no such file, not readable, or no ``grep``.
    """
    needles = [needle for cause in CAUSES.values() for sign in cause.signs for needle in sign.needles]
    fine = [*needles, TRACEBACK, "=== attempt "]
    try:
        size = path.stat().st_size
        found = _grep(path, fine, max(0, size - WINDOW))
        if size > WINDOW:
            found = chain(_grep(path, COARSE, 0, fine, until=size - WINDOW), found)
        return _last_attempt(path, found)
    except OSError as e:
        raise CannotRead(f"{path}: {e.strerror or e}") from e


def _last_attempt(path: Path, found: Iterator[tuple[int, bytes]]) -> list[Line]:
    first: list[Line] = []
    last: deque[Line] = deque(maxlen=KEPT)
    for offset, raw in found:
        text = _decoded(raw)
        if BANNER.match(text):
            first, last = [], deque(maxlen=KEPT)
            continue
        line = _end_of_traceback(path, offset) if TRACEBACK in text and len(first) < KEPT else Line(path, offset, text)
        (first if len(first) < KEPT else last).append(line)
    # A traceback's last line is often found for its own sake too.
    return sorted({line.offset: line for line in (*first, *last)}.values(), key=lambda line: line.offset)


def _decoded(raw: bytes) -> str:
    # A progress bar overwrites itself: the line is what stands after the last carriage return.
    return raw.rstrip(b"\r\n").rpartition(b"\r")[2].decode("utf-8", "replace")[:4000]


def _grep(
    path: Path, words: Sequence[str], start: int, then: Sequence[str] = (), *, until: int | None = None
) -> Iterator[tuple[int, bytes]]:
    """(offset, line) of the lines from ``start`` on that hold one of ``words`` and, if given, one of ``then``."""
    with tempfile.TemporaryDirectory() as folder, path.open("rb") as log:
        start = _line_start(log.fileno(), start)
        os.lseek(log.fileno(), start, os.SEEK_SET)
        first = _start(folder, "first", words, log.fileno(), "-b")
        last = _start(folder, "then", then, first.stdout) if then else first
        try:
            for raw in last.stdout or ():
                offset, _, text = raw.partition(b":")
                if not offset.isdigit():
                    continue
                if until is not None and start + int(offset) >= until:
                    break
                yield start + int(offset), text
        finally:
            for process in {first, last}:
                process.kill()
                process.wait()
                if process.stdout:
                    process.stdout.close()


def _start(
    folder: str, name: str, words: Sequence[str], source: int | IO[bytes] | None, *options: str
) -> subprocess.Popen[bytes]:
    patterns = Path(folder) / name
    patterns.write_text("\n".join(dict.fromkeys(words)) + "\n", encoding="utf-8")
    # -a: a stray byte does not make a log binary. The C locale compares bytes, ten times as fast.
    argv = ["grep", "-a", *options, "-F", "-f", str(patterns)]
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        return subprocess.Popen(argv, stdin=source, stdout=subprocess.PIPE, env=environment)
    except FileNotFoundError as e:
        raise CannotRead("grep is not on PATH") from e


def _line_start(fd: int, offset: int) -> int:
    """The first beginning of a line at or after ``offset``."""
    while offset:
        block = os.pread(fd, 4096, offset - 1)
        if not block:
            return offset
        if (at := block.find(b"\n")) >= 0:
            return offset + at
        offset += len(block)
    return 0


def _end_of_traceback(path: Path, offset: int) -> Line:
    """The line that names the exception: the first after ``Traceback`` that is not indented, rank prefix apart."""
    with path.open("rb") as log:
        log.seek(offset)
        head = log.readline(_AHEAD)
        prefix = head[: head.find(b"Traceback")]
        at = offset + len(head)
        for raw in log.read(_AHEAD).splitlines(keepends=True):
            # Lines of other processes come in between.
            body = raw[len(prefix) :] if raw.startswith(prefix) else None
            if body is not None and body[:1] not in (b" ", b"\t", b"", b"\n", b"\r") and b"Traceback" not in body:
                return Line(path, at, _decoded(raw))
            at += len(raw)
    return Line(path, offset, TRACEBACK)


def went_on(line: Line, steps: int = 3) -> bool:
    """Whether training went on for some steps after this line: then it did not end the run."""
    with line.path.open("rb") as log:
        log.seek(line.offset)
        return sum(1 for _ in _STEP.finditer(log.read(_AHEAD))) >= steps


def hint_after(line: Line) -> str:
    """What our own programs say to do, in the line after their error; empty after any other line."""
    with line.path.open("rb") as log:
        log.seek(line.offset)
        log.readline(_AHEAD)
        word, _, hint = _decoded(log.readline(_AHEAD)).partition(":")
    return hint.strip() if word.strip() == "hint" else ""


def number(line: Line) -> int:
    """The line's number in its file, counted from 1."""
    count, left = 1, line.offset
    with line.path.open("rb") as log:
        while left and (block := log.read(min(left, 2**22))):
            count += block.count(b"\n")
            left -= len(block)
    return count
