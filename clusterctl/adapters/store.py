"""Run directories on disk: atomic writes, records, what job and trainer left behind, listing."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import functools
import json
import os
import secrets
import shlex
import shutil
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from clusterctl.errors import NotFound, Unavailable
from clusterctl.record import Record

if TYPE_CHECKING:
    from clusterctl.status import Attempt, Progress

RECORD = "record.json"
_PREPARING = 60.0
"""Seconds within which the record of a new run directory may still come."""


def write_atomic(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace a file as a whole: readers see the old text or the new one, also after a crash.

    ``mode`` is what the umask may take from. A link in the place of the file is replaced, not followed.

    Raises:
        Unavailable: the disk is full or the folder is not writable; the old file is untouched.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    made = False
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        handle = os.open(temporary, flags, mode)
        made = True
        with os.fdopen(handle, "w", encoding="utf-8") as f:
            f.write(text)
            f.flush()
            os.fsync(f.fileno())
        temporary.replace(path)
    except OSError as e:
        if made:
            temporary.unlink(missing_ok=True)
        raise _cannot_write(path, e) from e


def text_of(path: Path, errors: str = "strict") -> str:
    """The text of a regular file. A pipe that somebody put into its place would keep a reader waiting for ever.

    Raises:
        OSError: none, not readable, or no regular file.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), encoding="utf-8", errors=errors) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        return file.read()


def make_run_dir(root: Path, run_id: str) -> Path:
    """Make the directory of a new run with its ``logs/``.

    Raises:
        FileExistsError: the id is taken.
        Unavailable: the root cannot be made or written.
    """
    run_dir = make_folder(root, run_id)
    try:
        (run_dir / "logs").mkdir()
    except OSError as e:
        raise _cannot_write(root, e) from e
    return run_dir


def make_folder(root: Path, name: str) -> Path:
    """Make a new folder in the output root, and that where it is not there yet. Raises as ``make_run_dir``."""
    folder = root / name
    try:
        root.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
    except FileExistsError:
        if root.is_dir():
            raise
        raise Unavailable(f"{root} is not a directory", hint="set output_root in clusterctl.yaml") from None
    except OSError as e:
        raise _cannot_write(root, e) from e
    return folder


def remove_run_dir(run_dir: Path) -> None:
    """Remove the directory of a run that nothing was submitted for."""
    shutil.rmtree(run_dir, ignore_errors=True)


@contextlib.contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """One process at a time changes what is submitted for this run; others wait here.

    Raises:
        Unavailable: the directory is not writable, or gone.
    """
    with contextlib.ExitStack() as held:
        try:
            lock = held.enter_context((run_dir / ".lock").open("a"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as e:
            raise _cannot_write(run_dir, e) from e
        yield


def write_record(run_dir: Path, record: Record) -> None:
    """Write ``record.json``."""
    write_atomic(run_dir / RECORD, json.dumps(dataclasses.asdict(record), indent=1, ensure_ascii=False) + "\n")


def read_record(run_dir: Path) -> Record:
    """Read ``record.json``. Fields of later versions that this one does not know are left out.

    Raises:
        NotFound: there is none, or it is torn or no record.
    """
    try:
        raw = json.loads(text_of(run_dir / RECORD))
        record: Record = _made(Record, raw)
        return record
    except FileNotFoundError as e:
        if _was_cut_short(run_dir):
            raise NotFound(
                f"{run_dir.name} has no record: its submission was cut short, and nothing was handed over",
                hint=f"remove it: rm -r {shlex.quote(str(run_dir))}",
            ) from e
        raise NotFound(f"{run_dir} holds no record", hint="clusterctl status --all lists the runs") from e
    except OSError as e:
        why = e.strerror or str(e)
    except (ValueError, RecursionError) as e:
        why = str(e)
        if (schema := number(read_json(run_dir / RECORD).get("schema"))) and schema > Record.schema:
            why += f"; a later version of clusterctl wrote it (schema {schema:.0f})"
    raise NotFound(f"the record of {run_dir.name} cannot be read: {why}", hint=f"look at {run_dir / RECORD}")


def run_dirs(root: Path) -> Iterator[Path]:
    """All run directories under the root by name, also those whose record is missing or cannot be looked at.

    Raises:
        Unavailable: the root is there, but cannot be read.
    """
    try:
        found = sorted(root.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as e:
        raise Unavailable(
            f"cannot read {root}: {e.strerror}", hint="set output_root in clusterctl.yaml or $CLUSTERCTL_OUTPUT_ROOT"
        ) from e
    for run_dir in found:
        try:
            (run_dir / RECORD).stat()
        except (FileNotFoundError, NotADirectoryError):
            if not _was_cut_short(run_dir):
                continue
        except OSError:
            pass  # whoever reads the record gets the reason
        yield run_dir


def _was_cut_short(run_dir: Path) -> bool:
    """What a submission leaves that was killed before it wrote the record: some of its files, and no log."""
    try:
        if time.time() - run_dir.stat().st_mtime < _PREPARING or any((run_dir / "logs").iterdir()):
            return False
        names = {path.name for path in run_dir.iterdir() if not path.name.startswith(".")}
    except OSError:
        return False
    return names == {"logs"} or ("run.yaml" in names and "attempts.jsonl" not in names)


def read_progress(run_dir: Path) -> Progress:
    """What the trainer last wrote; empty when there is nothing readable."""
    from clusterctl.status import Progress

    raw = read_json(run_dir / "progress.json")
    numbers = {
        "loss": float,
        "tokens_per_second": float,
        "seconds_per_step": float,
        "updated_at": float,
        "peak_memory": int,
        "max_steps": int,
        "step": int,
        "attempt": int,
    }
    values: dict[str, Any] = {"phase": str(raw.get("phase") or "")}
    for name, kind in numbers.items():
        if (value := number(raw.get(name))) is not None:
            values[name] = kind(value)
    error = raw.get("error")
    return Progress(**values, error=error if isinstance(error, str) else None)


def read_attempts(run_dir: Path) -> list[Attempt]:
    """The attempts so far, from ``attempts.jsonl``. Unreadable lines (a torn last one) are skipped."""
    from clusterctl.status import Attempt

    found: dict[int, Attempt] = {}
    for raw in _json_lines(run_dir / "attempts.jsonl"):
        which = raw.get("attempt")
        if not isinstance(which, int):
            continue
        when = number(raw.get("time")) or 0.0
        if raw.get("event") == "begin":
            found[which] = Attempt(which, str(raw.get("job_id") or ""), str(raw.get("host") or ""), when)
        elif raw.get("event") == "end" and which in found:
            code = raw.get("exit_code")
            found[which] = dataclasses.replace(
                found[which],
                ended_at=when,
                exit_code=code if isinstance(code, int) else None,
                outcome=str(raw.get("outcome") or ""),
                decision=str(raw.get("decision") or ""),
                why=str(raw.get("why") or ""),
                cause=str(raw.get("cause") or ""),
            )
    return [found[which] for which in sorted(found)]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one when there is nothing readable."""
    try:
        raw = json.loads(text_of(path))
    except (OSError, ValueError, RecursionError):
        return {}
    return raw if isinstance(raw, dict) else {}


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        text = text_of(path, "replace")
    except OSError:
        return
    for line in text.splitlines():
        try:
            raw = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(raw, dict):
            yield raw


def number(value: Any) -> float | None:
    """A finite number: JSON's may also be NaN, infinite or of a thousand digits."""
    real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if real and abs(value) <= sys.float_info.max else None


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _made(kind: Any, raw: Any) -> Any:
    """One of the dataclasses that a record is made of. ValueError names a field that is missing or of another type."""
    if not isinstance(raw, dict):
        raise ValueError(f"no {kind.__name__}, but {json.dumps(raw):.40}")
    for field in dataclasses.fields(kind):
        if field.default is dataclasses.MISSING and field.name not in raw:
            raise ValueError(f"{field.name} is missing")
    return kind(**{name: _checked(name, raw[name], hint) for name, hint in _hints(kind).items() if name in raw})


def _checked(name: str, value: Any, hint: Any) -> Any:
    origin, parts = get_origin(hint), get_args(hint)
    if dataclasses.is_dataclass(hint):
        return _made(hint, value)
    if origin is tuple:
        if isinstance(value, list):
            return tuple(_checked(name, item, parts[0]) for item in value)
        fits = False
    elif origin is Literal:
        fits = value in parts
    elif hint is float:
        fits = number(value) is not None
    else:
        fits = type(value) in (parts or (hint,))
    if not fits:
        raise ValueError(f"{name} is {json.dumps(value):.40}")
    return value


def _cannot_write(path: Path, error: OSError) -> Unavailable:
    hints = {
        errno.ENOSPC: "the disk is full: free some space, or set another output_root",
        errno.EDQUOT: "your quota is used up: free some space, or set another output_root",
        errno.EACCES: "you may not write there: set output_root in clusterctl.yaml or $CLUSTERCTL_OUTPUT_ROOT",
        errno.EPERM: "you may not write there: set output_root in clusterctl.yaml or $CLUSTERCTL_OUTPUT_ROOT",
        errno.EROFS: "that file system is read-only: set another output_root",
    }
    return Unavailable(
        f"cannot write {path}: {error.strerror or error}",
        hint=hints.get(error.errno or 0, "set output_root in clusterctl.yaml or $CLUSTERCTL_OUTPUT_ROOT"),
    )
