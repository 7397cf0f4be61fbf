"""Lines of a log in which a cause may stand, found without reading gigabytes in Python.

``grep`` with fixed strings is the only program fast enough that every machine has: Python's own search for all needles
of the table takes forty times as long. Memory stays the same however long the log is.
"""

from __future__ import annotations

import codecs
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
_TRACEBACK_END = "(most recent call last)"
"""What no colours stand within."""
_IGNORED = "Exception ignored "
_COLOURS = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")
_NOT_ITS_END = (b" ", b"\t", b"\n", b"\r", *(frame.encode() for frame in "│╭╰┃┏┗❱"))
"""How lines within a traceback begin, those of rich's frames too."""
_AHEAD = 256 * 2**10
_BLOCK = 64 * 2**10
_DONE = re.compile(rb"'train_runtime': |guard: training finished")
_STEP = re.compile(rb"(?:^|[\r\n])[^\r\n]{0,80}?(?:\bstep \d+/\d+|'loss': '?[\d.]+)")


class CannotRead(Exception):
    """The log cannot be searched; the words say why."""


@dataclass(frozen=True)
class Line:
    """A line of a log: ``offset`` in bytes is where it begins. ``raised``: it ends a traceback."""

    path: Path
    offset: int
    text: str
    raised: bool = False


def candidates(path: Path) -> list[Line]:
    """Lines of the last attempt that hold a needle, tracebacks replaced by the line that ends them; in order.

    Raises:
        CannotRead: no such file, not readable, no text, or no ``grep``.
    """
    needles = [needle for cause in CAUSES.values() for sign in cause.signs for needle in sign.needles]
    fine = [*needles, _TRACEBACK_END, _IGNORED, "Error: ", "=== attempt "]
    try:
        _refuse_other_than_text(path)
        size = path.stat().st_size
        found = _grep(path, fine, max(0, size - WINDOW))
        if size > WINDOW:
            found = chain(_grep(path, COARSE, 0, fine, until=size - WINDOW), found)
        return _last_attempt(path, found)
    except OSError as e:
        raise CannotRead(f"{path}: {e.strerror or e}") from e


def _refuse_other_than_text(path: Path) -> None:
    if not path.is_file():  # at a pipe one would wait
        raise CannotRead(f"{path} is no regular file, or not there")
    with path.open("rb") as log:
        head = log.read(4096)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise CannotRead(f"{path} is UTF-16; `iconv -f UTF-16 -t UTF-8` makes text of it that can be searched")
    if sum(0 < byte < 9 or 13 < byte < 27 for byte in head) > len(head) / 20:
        raise CannotRead(f"{path} is no plain text; where it is compressed, unpack it first")


def _last_attempt(path: Path, found: Iterator[tuple[int, bytes]]) -> list[Line]:
    first: list[Line] = []
    last: deque[Line] = deque(maxlen=KEPT)
    ignored, harmless = -1, set()
    for offset, raw in found:
        text = _decoded(raw)
        if BANNER.match(text):
            first, last = [], deque(maxlen=KEPT)
            continue
        if text.startswith(_IGNORED):  # what Python itself passes over; the traceback below tells more of it
            ignored = offset + len(raw)
            continue
        line = _end_of_traceback(path, offset) if TRACEBACK in text and len(first) < KEPT else Line(path, offset, text)
        if offset == ignored:
            harmless.add(line.offset)
        (first if len(first) < KEPT else last).append(line)
    # A traceback's last line is often found for its own sake too.
    once = {line.offset: line for line in sorted((*first, *last), key=lambda line: line.raised)}
    return sorted((line for at, line in once.items() if at not in harmless), key=lambda line: line.offset)


def _decoded(raw: bytes) -> str:
    # A progress bar overwrites itself: the line is what stands after the last carriage return.
    return _COLOURS.sub(b"", raw.rstrip(b"\r\n").rpartition(b"\r")[2]).decode("utf-8", "replace")[:4000]


def _grep(
    path: Path, words: Sequence[str], start: int, then: Sequence[str] = (), *, until: int | None = None
) -> Iterator[tuple[int, bytes]]:
    """(offset, line) of the lines from ``start`` on that hold one of ``words`` and, if given, one of ``then``."""
    with tempfile.TemporaryDirectory() as folder, path.open("rb") as log:
        start = _line_start(log.fileno(), start)
        os.lseek(log.fileno(), start, os.SEEK_SET)
        commands = [[*_searching(folder, "first", words), "-b"]]
        if _has_long_lines(log.fileno()):
            commands.insert(0, ["tr", "\\r\\000", "\\n\\n"])
        if then:
            commands.append(_searching(folder, "then", then))
        processes = _piped(commands, log)
        try:
            for raw in processes[-1].stdout or ():
                offset, _, text = raw.partition(b":")
                if not offset.isdigit():
                    continue
                if until is not None and start + int(offset) >= until:
                    break
                yield start + int(offset), text
            else:
                if any(process.wait() > 1 for process in processes):
                    raise CannotRead(f"{path}: grep cannot search it")
        finally:
            for process in processes:
                process.kill()
                process.wait()
                if process.stdout:
                    process.stdout.close()


def _searching(folder: str, name: str, words: Sequence[str]) -> list[str]:
    patterns = Path(folder) / name
    patterns.write_text("\n".join(dict.fromkeys(words)) + "\n", encoding="utf-8")
    # -a: a stray byte does not make a log binary.
    return ["grep", "-a", "-F", "-f", str(patterns)]


def _piped(commands: Sequence[Sequence[str]], source: IO[bytes]) -> list[subprocess.Popen[bytes]]:
    # The C locale compares bytes, ten times as fast.
    environment = {**os.environ, "LC_ALL": "C"}
    processes: list[subprocess.Popen[bytes]] = []
    for argv in commands:
        before = processes[-1].stdout if processes else source
        try:
            processes.append(subprocess.Popen(argv, stdin=before, stdout=subprocess.PIPE, env=environment))
        except FileNotFoundError as e:
            for process in processes:
                process.kill()
                process.wait()
            raise CannotRead(f"{argv[0]} is not on PATH") from e
    return processes


def _has_long_lines(fd: int) -> bool:
    """Whether a line may have more than 8 MiB: grep holds it in memory as a whole, twice.

    A progress bar of days is such a line, and a hole in the file. To cut all logs into shorter ones takes too long.
    """
    last = os.fstat(fd).st_size - _BLOCK
    return any(b"\n" not in os.pread(fd, _BLOCK, at) for at in range(0, last, 8 * 2**20))


def _line_start(fd: int, offset: int) -> int:
    """The first beginning of a line at or after ``offset``."""
    while offset:
        block = os.pread(fd, 4096, offset - 1)
        if not block:
            return offset
        if found := re.search(rb"[\n\r\0]", block):
            return offset + found.start()
        offset += len(block)
    return 0


def _end_of_traceback(path: Path, offset: int) -> Line:
    """The line that names the exception: the first after ``Traceback`` that is not indented, rank prefix apart."""
    with path.open("rb") as log:
        log.seek(offset)
        head, rest = log.readline(_AHEAD), log.read(_AHEAD)
    prefix = head[: head.find(b"Traceback")]
    if prefix + b"  " not in rest:
        prefix = b""  # it is a progress bar, or a frame
    at = offset + len(head)
    for raw in rest.splitlines(keepends=True):
        # Lines of other processes, and progress bars, come in between.
        body = _COLOURS.sub(b"", raw[len(prefix) :]) if raw.startswith(prefix) else b" "
        if not body.startswith(_NOT_ITS_END) and b"Traceback" not in body and b"%|" not in body:
            return Line(path, at, _decoded(raw), raised=True)
        at += len(raw)
    return Line(path, offset, TRACEBACK, raised=True)


def went_on(line: Line, steps: int = 3) -> bool:
    """Whether training went on for some steps after this line, or ended well: then it did not end the run."""
    with line.path.open("rb") as log:
        log.seek(line.offset)
        ahead = log.read(_AHEAD)
    return bool(_DONE.search(ahead)) or sum(1 for _ in _STEP.finditer(ahead)) >= steps


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
