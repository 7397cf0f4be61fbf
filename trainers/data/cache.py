"""Token ids on disk: made once, by whoever comes first, and found again by all others.

``FOLDER/FINGERPRINT/`` holds an Arrow file for each set of rows and ``counts.json``. It is written under another
name and renamed when it is whole, so what has the right name can be trusted. Processes that need the same rows
wait for a file lock, which no process group knows of: however long it takes, no NCCL time-out comes from it. Where
the file system has no locks each process makes its own, and the first one to be done is kept.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset

log = logging.getLogger(__name__)

VERSION = 1
"""Of our own code: to be raised when the same input becomes other rows."""

_CHUNK = 1000
"""Rows that are written together."""


def fingerprint(*parts: Any) -> str:
    """A short name for everything that decides what the rows are. Parts are JSON values or bytes."""
    digest = hashlib.sha256(str(VERSION).encode())
    for part in parts:
        content = part if isinstance(part, bytes) else json.dumps(part, sort_keys=True).encode()
        digest.update(len(content).to_bytes(8, "big") + content)
    return digest.hexdigest()[:20]


def source_stamp(names: Iterable[str]) -> list[list[Any]] | None:
    """Path, size and time of change of all files; None when one of the names is not on this disk."""
    stamp = []
    for name in names:
        path = Path(name)
        if not path.exists():
            return None
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                stat = file.stat()
                stamp.append([str(file.resolve()), stat.st_size, stat.st_mtime_ns])
    return stamp


def find_or_build(folder: Path, build: Callable[[Path], None]) -> Path:
    """The folder, where necessary made by ``build``, which gets the empty folder to write into."""
    if folder.is_dir():
        log.info("tokenised rows found in %s", folder)
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _lock(folder.parent / f"{folder.name}.lock") as alone:
        if folder.is_dir():
            return folder
        if alone:
            for torn in folder.parent.glob(f"{folder.name}.*.tmp"):
                shutil.rmtree(torn, ignore_errors=True)
        temporary = folder.parent / f"{folder.name}.{socket.gethostname()}-{os.getpid()}.tmp"
        try:
            temporary.mkdir()
            build(temporary)
            temporary.rename(folder)
            log.info("tokenised rows are kept in %s", folder)
        except OSError as e:
            # Without locks another process may have been first.
            if e.errno not in (errno.ENOTEMPTY, errno.EEXIST) or not folder.is_dir():
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[bool]:
    """Hold a lock on the file; False where the file system has none, or where the file is somebody else's."""
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("a"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log.info("another process tokenises these rows: waiting for it")
                fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as e:
            log.warning("%s cannot be locked (%s): each process tokenises by itself", path, e.strerror)
            yield False
        else:
            yield True


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write rows of lists of token ids as an Arrow file; returns how many. Memory holds a thousand of them."""
    rows = iter(rows)
    first = next(rows, None)
    if first is None:
        return 0
    count = 0
    schema = pa.schema({name: pa.list_(pa.int32()) for name in first})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        chunk = [first]
        while chunk:
            columns = [pa.array([row[name] for row in chunk], type=pa.list_(pa.int32())) for name in first]
            writer.write_batch(pa.record_batch(columns, schema=schema))
            count += len(chunk)
            chunk = list(islice(rows, _CHUNK))
    return count


def read_rows(path: Path) -> Dataset | None:
    """The rows of a file, which stay on disk; None where there are none."""
    return Dataset.from_file(str(path)) if path.exists() else None


def write_counts(folder: Path, counts: dict[str, int]) -> None:
    """Keep what was counted while the rows were made."""
    (folder / "counts.json").write_text(json.dumps(counts), encoding="utf-8")


def read_counts(folder: Path) -> dict[str, int]:
    """What was counted while the rows were made."""
    return dict(json.loads((folder / "counts.json").read_text(encoding="utf-8")))
