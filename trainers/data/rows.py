"""Reading CSV and JSONL files row by row, with the place of every row for error messages."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainers.errors import InputProblem

SHOWN = 5
"""So many bad rows are shown of one file; all of them are counted."""

# A field may be a whole conversation; the module's default limit is 128 KiB.
csv.field_size_limit(min(sys.maxsize, 2**31 - 1))


@dataclass(frozen=True)
class Row:
    """One row of a file and where it stands in it."""

    place: str
    fields: dict[str, Any]


class BadRow(Exception):
    """This row cannot be used; the message says why."""


class BadRows:
    """The bad rows among many. Work goes on behind the first, so that one look shows the extent."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._count = 0
        self._shown: list[str] = []

    def add(self, place: str, why: str) -> None:
        """Count a row, and keep its reason if it is among the first."""
        self._count += 1
        if self._count <= SHOWN:
            self._shown.append(f"  {place}: {why}")

    def raise_if_any(self, total: int) -> None:
        """Raise InputProblem when a row was bad."""
        if not self._count:
            return
        more = [f"  and {self._count - SHOWN} more"] if self._count > SHOWN else []
        head = f"{self._what}: {self._count} of {total} rows cannot be used"
        raise InputProblem("\n".join([head, *self._shown, *more]), hint="correct or delete these rows")


def read(path: Path) -> list[Row]:
    """All rows of a CSV or JSONL file. Raises InputProblem for the file and for rows that cannot be read."""
    readers = {".csv": _read_csv, ".jsonl": _read_jsonl, ".json": _read_jsonl}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputProblem(f"{path}: neither a .csv nor a .jsonl file", hint="convert it to one of these")
    bad = BadRows(str(path))
    rows, total = [], 0
    try:
        for item in reader(path):
            total += 1
            if isinstance(item, Row):
                rows.append(item)
            else:
                bad.add(*item)
    except FileNotFoundError:
        raise InputProblem(f"{path}: no such file", hint="check data.train_files and data.eval_files") from None
    except UnicodeDecodeError as e:
        raise InputProblem(f"{path}: not UTF-8 ({e.reason})", hint="convert it: iconv -t UTF-8") from None
    except OSError as e:
        raise InputProblem(f"{path}: {e.strerror}", hint="check the path and its permissions") from None
    bad.raise_if_any(total)
    if not rows:
        raise InputProblem(f"{path}: holds no rows", hint="a file needs at least one row of data")
    return rows


def _place(number: int, line: int) -> str:
    """Where a row is: its number among the data rows and its first line, both counted from 1."""
    return f"row {number} (line {line})"


def _read_csv(path: Path) -> Iterator[Row | tuple[str, str]]:
    # utf-8-sig: spreadsheet programs put a byte order mark in front, which would become part of the first name.
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        names: list[str] | None = None
        number, line = 0, 1
        while True:
            try:
                values = next(reader, None)
            except csv.Error as e:
                # Where quoting is broken nobody can say where the next row begins.
                yield _place(number + 1, line), f"not valid CSV: {e}; the rest of the file was not read"
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
                    yield _place(number, line), f"{len(values)} fields, but the header has {len(names)}"
            line = reader.line_num + 1


def _header(path: Path, names: list[str]) -> list[str]:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputProblem(f"{path}: the header (line 1) has the column {twice!r} twice", hint="rename or delete one")
    if any("\0" in name for name in names):
        raise InputProblem(f"{path}: the header (line 1) holds NUL bytes", hint="convert it: iconv -f UTF-16 -t UTF-8")
    return names


def _read_jsonl(path: Path) -> Iterator[Row | tuple[str, str]]:
    with path.open(encoding="utf-8-sig") as file:
        number = 0
        for line, text in enumerate(file, start=1):
            if not text.strip():
                continue
            number += 1
            try:
                value = json.loads(text)
            except (ValueError, RecursionError) as e:
                hint = " (a JSON array? write one object per line)" if text.strip() == "[" else ""
                yield _place(number, line), f"not valid JSON: {e}{hint}"
                continue
            if isinstance(value, dict):
                yield Row(_place(number, line), value)
            else:
                yield _place(number, line), f"a JSON {type(value).__name__}, not an object"
