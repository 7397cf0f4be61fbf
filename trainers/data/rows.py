"""Reading CSV, JSONL, JSON and txt files row by row, with the place of every row for error messages.

The standard library alone, since a login node looks at the rows as well. Files are never read whole, except JSON
arrays, which have no other way. Each kind may be compressed: ``train.jsonl.gz``.
"""

from __future__ import annotations

import csv
import gzip
import json
import logging
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import TextIOBase
from pathlib import Path
from typing import Any

from trainers.errors import InputProblem

log = logging.getLogger(__name__)

SHOWN = 5
"""So many bad rows are shown of one file; all of them are counted."""

PIECE = 2**16
"""Characters after which a txt file is cut at the next empty line, about 16 thousand tokens."""

_FAR = 2**12
"""Characters without an empty line after which a line's end has to do."""

# A field may be a whole conversation; the module's default limit is 128 KiB.
csv.field_size_limit(min(sys.maxsize, 2**31 - 1))


@dataclass(frozen=True)
class Row:
    """One row of a file and where it stands in it."""

    place: str
    fields: dict[str, Any]


@dataclass(frozen=True)
class Unreadable:
    """A place of a file where no row could be read, and why."""

    place: str
    why: str


Rows = Iterator[Row | Unreadable]


class BadRow(Exception):
    """This row cannot be used; the message says why."""


class BadRows:
    """The bad rows among many. Work goes on behind the first, so that one look shows the extent."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._shown: list[str] = []
        self.count = 0
        self.total = 0
        """Rows that were looked at, good and bad."""

    def add(self, place: str, why: str) -> None:
        """Count a row, and keep its reason if it is among the first."""
        self.count += 1
        if self.count <= SHOWN:
            self._shown.append(f"  {place}: {why}")

    def lines(self, verdict: str = "cannot be used") -> list[str]:
        """How many rows are bad, and the first of them."""
        more = [f"  and {self.count - SHOWN} more"] if self.count > SHOWN else []
        return [f"{self._what}: {self.count} of {self.total} rows {verdict}", *self._shown, *more]

    def raise_if_any(self, total: int) -> None:
        """Raise InputProblem when one of so many rows was bad."""
        self.total = total
        if self.count:
            raise InputProblem("\n".join(self.lines()), hint="correct or delete these rows")


class Skipped:
    """What is not used of the rows of some files, counted: empty documents, and bad rows.

    Bad rows are an error, unless ``leave_out`` allows them. It is raised when all files are read, for all of them.
    """

    def __init__(self, *, leave_out: bool) -> None:
        self._leave_out = leave_out
        self.begin()

    def begin(self) -> None:
        """Count anew."""
        self.empty = 0
        self._files: list[BadRows] = []

    @property
    def bad(self) -> int:
        """Rows that cannot be used."""
        return sum(file.count for file in self._files)

    def file(self, name: str) -> BadRows:
        """Where the bad rows of one more file are noted."""
        self._files.append(BadRows(name))
        return self._files[-1]

    def settle(self) -> None:
        """Raise InputProblem for the bad rows of all files; where they are allowed, log which are left out."""
        if self._leave_out:
            for text in self.left_out():
                log.warning("%s", text)
        elif found := self._found():
            raise InputProblem(
                "\n".join(line for file in found for line in file.lines()),
                hint="correct or delete these rows, or leave them out with data.skip_bad_rows",
            )

    def left_out(self) -> list[str]:
        """The bad rows of each file that has some, in words, where they are allowed."""
        verdict = "are left out (data.skip_bad_rows)"
        return ["\n".join(file.lines(verdict)) for file in self._found()] if self._leave_out else []

    def _found(self) -> list[BadRows]:
        return [file for file in self._files if file.count]


def suffix(name: str) -> str:
    """The suffix that tells a file's kind, without that of its compression: ``.jsonl`` of ``a.jsonl.gz``."""
    path = Path(name)
    return (path.with_suffix("") if path.suffix.lower() == ".gz" else path).suffix.lower()


def read(path: Path, limit: int | None = None) -> Rows:
    """The rows of a CSV, JSONL, JSON or txt file, to be walked once.

    With ``limit`` no row is begun that lies more than so many characters behind the beginning, except in a JSON
    array. Raises InputProblem for what no row of the file survives.
    """
    try:
        with _open(path) as file:
            yield from READERS[suffix(path.name)](path, file, limit or sys.maxsize)
    except FileNotFoundError:
        raise InputProblem(f"{path}: no such file", hint="check data.train_files and data.eval_files") from None
    except UnicodeDecodeError as e:
        raise InputProblem(f"{path}: not UTF-8 ({e.reason})", hint="convert it: iconv -t UTF-8") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as e:
        raise InputProblem(f"{path}: not a whole gzip file ({e})", hint="check it with gzip -t, make it anew") from None
    except OSError as e:
        raise InputProblem(f"{path}: {e.strerror}", hint="check the path and its permissions") from None


def _open(path: Path) -> Any:
    # The csv module finds line ends itself, those within quotes too.
    newline = "" if suffix(path.name) == ".csv" else None
    # utf-8-sig: spreadsheet programs put a byte order mark in front, which would become part of the first name.
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline=newline)
    return path.open(encoding="utf-8-sig", newline=newline)


def _place(number: int, line: int) -> str:
    """Where a row is: its number among the data rows and its first line, both counted from 1."""
    return f"row {number} (line {line})"


class _Lines:
    """The lines of a file up to a limit of characters, and how many there were."""

    def __init__(self, file: TextIOBase) -> None:
        self._file = file
        self.characters = 0

    def __iter__(self) -> Iterator[str]:
        for line in self._file:
            self.characters += len(line)
            yield line


def _read_csv(path: Path, file: TextIOBase, limit: int) -> Rows:
    lines = _Lines(file)
    reader = csv.reader(lines, strict=True)
    names: list[str] | None = None
    number, line = 0, 1
    while lines.characters < limit:
        try:
            values = next(reader, None)
        except csv.Error as e:
            # Where quoting is broken nobody can say where the next row begins.
            yield Unreadable(_place(number + 1, line), f"not valid CSV: {e}; the rest of the file was not read")
            return
        if values is None:
            return
        if names is None:
            names = _header(path, values)
        elif values:
            number += 1
            if len(values) == len(names):
                yield Row(_place(number, line), dict(zip(names, values, strict=True)))
            else:
                yield Unreadable(_place(number, line), f"{len(values)} fields, but the header has {len(names)}")
        line = reader.line_num + 1


def _header(path: Path, names: list[str]) -> list[str]:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputProblem(f"{path}: the header (line 1) has the column {twice!r} twice", hint="rename or delete one")
    if any("\0" in name for name in names):
        raise InputProblem(f"{path}: the header (line 1) holds NUL bytes", hint="convert it: iconv -f UTF-16 -t UTF-8")
    return names


def _read_jsonl(path: Path, file: TextIOBase, limit: int) -> Rows:
    lines = _Lines(file)
    number = 0
    for line, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        number += 1
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as e:
            hint = " (a JSON array? name the file .json)" if text.strip() == "[" else ""
            yield Unreadable(_place(number, line), f"not valid JSON: {e}{hint}")
        else:
            yield _object(_place(number, line), value)
        if lines.characters >= limit:
            return


def _object(place: str, value: Any) -> Row | Unreadable:
    if isinstance(value, dict):
        return Row(place, value)
    return Unreadable(place, f"a JSON {type(value).__name__}, not an object")


def _read_json(path: Path, file: TextIOBase, limit: int) -> Rows:
    """An array of objects. Much that is called .json is JSONL, which begins with an object."""
    first = file.read(1)
    while first.isspace():
        first = file.read(1)
    file.seek(0)
    if first != "[":
        yield from _read_jsonl(path, file, limit)
        return
    try:
        values = json.load(file)
    except (ValueError, RecursionError) as e:
        raise InputProblem(
            f"{path}: not valid JSON: {e}", hint="one array of objects, or one object per line, is wanted"
        ) from None
    for number, value in enumerate(values, start=1):
        yield _object(f"row {number}", value)


def _read_txt(path: Path, file: TextIOBase, limit: int) -> Rows:
    """One document a file. One of more than PIECE characters is cut at empty lines into several.

    Lines are not documents, as they are for run_clm of transformers: each would get an end token, and documents
    do not see each other here, so that nothing would be learnt across the lines of a text.
    """
    piece: list[str] = []
    size = number = read = 0
    first = 1
    for line, text in enumerate(file, start=1):
        piece.append(text)
        size += len(text)
        read += len(text)
        if size >= PIECE and (not text.strip() or size >= PIECE + _FAR):
            number += 1
            yield Row(_place(number, first), {"text": "".join(piece)})
            piece, size, first = [], 0, line + 1
            if read >= limit:
                return
    if size:
        yield Row(_place(number + 1, first), {"text": "".join(piece)})


READERS: dict[str, Callable[[Path, TextIOBase, int], Rows]] = {
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".txt": _read_txt,
}
"""What a file's suffix says about how to read it."""
