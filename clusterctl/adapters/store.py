"""Run directories on disk: atomic writes, records, what job and trainer left behind, listing."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from clusterctl.errors import NotFound, Unavailable
from clusterctl.model import Attempt, JobEntry, Progress, Record, Resources

RECORD = "record.json"


def write_atomic(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace a file as a whole: readers see the old text or the new one, also after a crash.

    Raises:
        Unavailable: the disk is full or the folder is not writable; the old file is untouched.
    """
    temporary = ""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "w", encoding="utf-8") as f:
            f.write(text)
            f.flush()
            os.fchmod(f.fileno(), mode)
            os.fsync(f.fileno())
        Path(temporary).replace(path)
    except OSError as e:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise _cannot_write(path, e) from e


def make_run_dir(root: Path, run_id: str) -> Path:
    """Make the directory of a new run with its ``logs/``.

    Raises:
        FileExistsError: the id is taken.
        Unavailable: the root cannot be made or written.
    """
    run_dir = root / run_id
    try:
        root.mkdir(parents=True, exist_ok=True)
        run_dir.mkdir()
        (run_dir / "logs").mkdir()
    except FileExistsError:
        if root.is_dir():
            raise
        raise Unavailable(f"{root} is not a directory", hint="set output_root in clusterctl.yaml") from None
    except OSError as e:
        raise _cannot_write(root, e) from e
    return run_dir


def remove_run_dir(run_dir: Path) -> None:
    """Remove the directory of a run that nothing was submitted for."""
    shutil.rmtree(run_dir, ignore_errors=True)


@contextlib.contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """One process at a time changes what is submitted for this run; others wait here."""
    try:
        with (run_dir / ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except PermissionError as e:
        raise _cannot_write(run_dir, e) from e


def write_record(run_dir: Path, record: Record) -> None:
    """Write ``record.json``."""
    write_atomic(run_dir / RECORD, json.dumps(dataclasses.asdict(record), indent=1, ensure_ascii=False) + "\n")


def read_record(run_dir: Path) -> Record:
    """Read ``record.json``. Fields of later versions that this one does not know are left out.

    Raises:
        NotFound: there is none, or it is torn or no record.
    """
    try:
        raw = json.loads((run_dir / RECORD).read_text(encoding="utf-8"))
        return _record(raw)
    except FileNotFoundError as e:
        raise NotFound(f"{run_dir} holds no record", hint="clusterctl status --all lists the runs") from e
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as e:
        raise NotFound(
            f"the record of {run_dir.name} cannot be read ({type(e).__name__})",
            hint=f"look at {run_dir / RECORD}",
        ) from e


def run_dirs(root: Path) -> Iterator[Path]:
    """All run directories under the root, oldest first by name of the day, then by id."""
    try:
        entries = [entry for entry in os.scandir(root) if entry.is_dir()]
    except OSError:
        return
    for entry in sorted(entries, key=lambda e: e.name):
        path = Path(entry.path)
        if (path / RECORD).exists():
            yield path


def read_progress(run_dir: Path) -> Progress:
    """What the trainer last wrote; empty when there is nothing readable."""
    raw = _json(run_dir / "progress.json")
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
        value = raw.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value == value:
            values[name] = kind(value)
    error = raw.get("error")
    return Progress(**values, error=error if isinstance(error, str) else None)


def read_attempts(run_dir: Path) -> list[Attempt]:
    """The attempts so far, from ``attempts.jsonl``. Unreadable lines (a torn last one) are skipped."""
    found: dict[int, Attempt] = {}
    for raw in _json_lines(run_dir / "attempts.jsonl"):
        number = raw.get("attempt")
        if not isinstance(number, int):
            continue
        time = raw.get("time")
        when = float(time) if isinstance(time, (int, float)) else 0.0
        if raw.get("event") == "begin":
            found[number] = Attempt(number, str(raw.get("job_id") or ""), str(raw.get("host") or ""), when)
        elif raw.get("event") == "end" and number in found:
            code = raw.get("exit_code")
            found[number] = dataclasses.replace(
                found[number],
                ended_at=when,
                exit_code=code if isinstance(code, int) else None,
                outcome=str(raw.get("outcome") or ""),
                decision=str(raw.get("decision") or ""),
                why=str(raw.get("why") or ""),
            )
    return [found[number] for number in sorted(found)]


def read_json(path: Path) -> Mapping[str, Any]:
    """A JSON object, or an empty one when there is nothing readable."""
    return _json(path)


def _json(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return raw if isinstance(raw, dict) else {}


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for line in text.splitlines():
        try:
            raw = json.loads(line)
        except ValueError:
            continue
        if isinstance(raw, dict):
            yield raw


def _record(raw: dict[str, Any]) -> Record:
    def known(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
        names = {f.name for f in dataclasses.fields(kind)}
        return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in names}

    jobs = tuple(JobEntry(**known(JobEntry, job)) for job in raw.get("jobs", ()))
    return Record(
        **{
            **known(Record, raw),
            "resources": Resources(**known(Resources, raw["resources"])),
            "jobs": jobs,
        }
    )


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
