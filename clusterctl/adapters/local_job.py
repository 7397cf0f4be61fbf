"""What is kept about a local job: ``local.json`` in its run directory, and the list of job ids of this user."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from clusterctl.adapters.procfs import Place, Process
from clusterctl.adapters.store import text_of, write_atomic
from clusterctl.errors import NotFound, Unavailable
from clusterctl.model import JobState, Resources

FILE = "local.json"
RUNNER_LOG = "logs/runner.log"


Phase = Literal["submitted", "waiting", "running", "ended"]


class Unreadable(Exception):
    """``local.json`` is torn, or not ours to read. The message says so in words."""


@dataclass(frozen=True)
class LocalJob:
    """A job of the local runner. Written by ``submit``, from then on by the runner alone.

    While the phase is ``submitted``, ``runner`` is the submitting process.
    ``kill_wait`` and ``cancel_grace`` are seconds between TERM and KILL at the time limit and at cancellation.
    """

    job_id: str
    token: str
    name: str
    place: Place
    submitted_at: float
    resources: Resources
    after: tuple[str, ...]
    kill_wait: float
    cancel_grace: float
    runner: Process
    phase: Phase = "submitted"
    reason: str = ""
    gpus: tuple[str, ...] = ()
    restarts: int = 0
    started_at: float | None = None
    ended_at: float | None = None
    state: JobState | None = None
    exit_code: int | None = None
    signal: int | None = None
    sweep: str = ""
    parallel: int | None = None
    schema: int = 1


def write(run_dir: Path, job: LocalJob) -> None:
    """Replace ``local.json``.

    Raises:
        Unavailable: it cannot be written.
    """
    write_atomic(run_dir / FILE, json.dumps(dataclasses.asdict(job), indent=1, ensure_ascii=False) + "\n")


def read(run_dir: Path) -> LocalJob | None:
    """The job in a run directory; None when there is none.

    Raises:
        Unreadable: there is something that is no such record.
    """
    try:
        return _from_json(json.loads(text_of(run_dir / FILE)))
    except FileNotFoundError:
        return None
    except OSError as e:
        raise Unreadable(f"{FILE} cannot be read: {e.strerror}") from e
    except (ValueError, TypeError, KeyError) as e:
        raise Unreadable(f"{FILE} is damaged ({type(e).__name__}: {e})") from e


def _from_json(raw: dict[str, Any]) -> LocalJob:
    if raw["schema"] != 1:
        raise ValueError(f"schema {raw['schema']} is not known to this version")
    if raw["phase"] not in get_args(Phase):
        raise ValueError(f"phase {raw['phase']!r} is not known to this version")
    resources = raw["resources"]
    return LocalJob(
        **{
            **raw,
            "place": Place(**raw["place"]),
            "resources": Resources(**{**resources, "gpu_ids": tuple(resources["gpu_ids"])}),
            "after": tuple(raw["after"]),
            "gpus": tuple(raw["gpus"]),
            "runner": Process(**raw["runner"]),
            "state": raw["state"] and JobState(raw["state"]),
        }
    )


# --- the list of jobs -------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """Where a job id leads. The run directory may have been moved or removed since."""

    job_id: str
    token: str
    run_dir: Path


def register(token: str, run_dir: Path) -> str:
    """Give the next job id (L1, L2, ...) to a run directory and remember it.

    Raises:
        Unavailable: the user's state directory cannot be written.
    """
    folder = _registry()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _counting(folder) as counter:
            number = 1 + max([_number_in(counter), *_numbers(folder)])
            job_id = f"L{number}"
            entry = {"schema": 1, "job_id": job_id, "token": token, "run_dir": str(run_dir)}
            write_atomic(folder / job_id, json.dumps(entry, ensure_ascii=False) + "\n")
            os.ftruncate(counter, 0)
            os.pwrite(counter, f"{number}\n".encode(), 0)
    except OSError as e:
        raise Unavailable(
            f"job ids cannot be kept in {folder}: {e.strerror or e}",
            hint="set XDG_STATE_HOME to a folder of yours",
        ) from e
    return job_id


def unregister(job_id: str) -> None:
    """Forget a job that never came to be. Its id is not used again."""
    (_registry() / job_id).unlink(missing_ok=True)


def entry(job_id: str) -> Entry:
    """The entry of a job id.

    Raises:
        NotFound: there is none that can be read.
    """
    if job_id.startswith("L") and job_id[1:].isdecimal():
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            raw = json.loads((_registry() / job_id).read_text(encoding="utf-8"))
            return Entry(raw["job_id"], raw["token"], Path(raw["run_dir"]))
    raise NotFound(f"there is no local job {job_id}", hint="clusterctl status --all lists the runs and their jobs")


def find(token: str) -> str | None:
    """The id of the job with this token, newest first."""
    for number in sorted(_numbers(_registry()), reverse=True):
        with contextlib.suppress(NotFound):
            if entry(f"L{number}").token == token:
                return f"L{number}"
    return None


def _registry() -> Path:
    """``$XDG_STATE_HOME/clusterctl/local``. The specification wants relative values ignored."""
    base = os.environ.get("XDG_STATE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".local/state") / "clusterctl" / "local"


@contextlib.contextmanager
def _counting(folder: Path) -> Iterator[int]:
    counter = os.open(folder / "counter", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(counter, fcntl.LOCK_EX)
        yield counter
    finally:
        os.close(counter)


def _number_in(counter: int) -> int:
    text = os.pread(counter, 32, 0).decode(errors="replace").strip()
    return int(text) if text.isdecimal() else 0


def _numbers(folder: Path) -> list[int]:
    try:
        names = [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return []
    return [int(name[1:]) for name in names if name.startswith("L") and name[1:].isdecimal()]
