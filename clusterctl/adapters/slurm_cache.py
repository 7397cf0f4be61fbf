"""What the terminals of one user share about one cluster, so that five of them cost Slurm as much as one.

A file of our own in a private folder below ``$XDG_CACHE_HOME``, guarded by a lock. It is never needed: a file that is
torn, from another version or not ours, a folder that cannot be written, a lock that nobody gives back only mean that
Slurm is asked. Times are Unix seconds.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import socket
import stat
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from clusterctl.model import JobState

_SCHEMA = 1
_KEEP = 90 * 86400.0
"""Seconds that a job which nobody asks about is remembered."""


@dataclass
class Sighting:
    """What is remembered of one hand-over: its last state, when that was so, and its accounting records.

    ``asked_at`` is the time when accounting was last asked about it, ``record`` its lines of sacct.
    """

    state: JobState = JobState.UNKNOWN
    seen_at: float = 0.0
    asked_at: float = 0.0
    record: str = ""


@dataclass
class Known:
    """The last answers: squeue's text as it came, when Slurm last failed to answer, and sightings by token.

    ``searched`` holds accounting's records of all our jobs of the last weeks.
    """

    queue: str = ""
    taken_at: float = 0.0
    failure: str = ""
    failed_at: float = 0.0
    accounting_off_at: float = 0.0
    accounting_problem: str = ""
    sightings: dict[str, Sighting] = field(default_factory=dict)
    searched: str = ""
    searched_at: float = 0.0


class SlurmCache:
    """The shared knowledge about the cluster that this process talks to."""

    def __init__(self) -> None:
        # The host is part of the name: a home directory may be shared by clusters that all read /etc/slurm.
        cluster = [os.environ.get(name, "") for name in ("SLURM_CONF", "SLURM_CLUSTERS")]
        key = json.dumps([socket.gethostname(), os.getuid(), *cluster])
        self._name = "slurm-" + hashlib.sha256(key.encode()).hexdigest()[:16]
        self._folder = _private_folder()

    @contextlib.contextmanager
    def locked(self, patience: float) -> Iterator[None]:
        """Let one process at a time ask Slurm. After ``patience`` seconds go on all the same."""
        descriptor = self._open(".lock", os.O_RDWR | os.O_CREAT)
        if descriptor is None:
            yield
            return
        try:
            _lock(descriptor, time.monotonic() + patience)
            yield
        finally:
            os.close(descriptor)  # which gives the lock back

    def load(self) -> Known:
        """The shared knowledge; empty when there is none that can be trusted."""
        try:
            return _decode(self._read(".json"))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return Known()

    def save(self, known: Known) -> None:
        """Share this knowledge, without the jobs that nobody has asked about for a long time."""
        oldest = time.time() - _KEEP
        known.sightings = {k: s for k, s in known.sightings.items() if max(s.seen_at, s.asked_at) > oldest}
        self._write(".json", json.dumps({"schema": _SCHEMA, **asdict(known)}))

    def starts(self) -> str:
        """What was kept of the questions about queue starts; empty when there is nothing."""
        return self._read(".starts")

    def save_starts(self, text: str) -> None:
        """Keep it for the other terminals."""
        self._write(".starts", text)

    def note_change(self) -> None:
        """We have changed something: answers from before this moment are out of date, also in other terminals."""
        self._write(".changed", json.dumps(time.time()))

    def changed_at(self) -> float:
        """When the last of our changes was made."""
        try:
            return float(json.loads(self._read(".changed")))
        except (ValueError, TypeError):
            return 0.0

    def _open(self, suffix: str, flags: int) -> int | None:
        """A file descriptor, or None when there is no such file of ours."""
        if self._folder is None:
            return None
        try:
            descriptor = os.open(self._folder / (self._name + suffix), flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError:
            return None
        info = os.fstat(descriptor)
        if info.st_uid != os.getuid() or not stat.S_ISREG(info.st_mode):
            os.close(descriptor)
            return None
        return descriptor

    def _read(self, suffix: str) -> str:
        descriptor = self._open(suffix, os.O_RDONLY | os.O_NONBLOCK)
        if descriptor is None:
            return ""
        with os.fdopen(descriptor, encoding="utf-8", newline="") as file:
            return file.read()

    def _write(self, suffix: str, text: str) -> None:
        if self._folder is None:
            return
        path = self._folder / (self._name + suffix)
        temporary = path.with_name(f"{path.name}.{os.getpid()}")
        with contextlib.suppress(OSError):  # a full disk is no reason to fail: it is only a cache
            try:
                descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
                with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
                    file.write(text)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)


def _private_folder() -> Path | None:
    """Our folder, which nobody else can read or write; None when there cannot be one."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        folder = (Path(base) if base.startswith("/") else Path.home() / ".cache") / "clusterctl"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = folder.lstat()
        if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid():
            return None
        folder.chmod(0o700)
    except (OSError, RuntimeError):  # the latter: no home directory
        return None
    return folder


def _lock(descriptor: int, deadline: float) -> None:
    while time.monotonic() < deadline:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05)
        except OSError:  # a file system without locks
            return
        else:
            return


def _decode(text: str) -> Known:
    data = json.loads(text)
    if data["schema"] != _SCHEMA:
        raise ValueError("another version wrote this")
    sightings = {
        str(token): Sighting(JobState(s["state"]), float(s["seen_at"]), float(s["asked_at"]), str(s["record"]))
        for token, s in data["sightings"].items()
    }
    return Known(
        queue=str(data["queue"]),
        taken_at=float(data["taken_at"]),
        failure=str(data["failure"]),
        failed_at=float(data["failed_at"]),
        accounting_off_at=float(data["accounting_off_at"]),
        accounting_problem=str(data["accounting_problem"]),
        sightings=sightings,
        searched=str(data["searched"]),
        searched_at=float(data["searched_at"]),
    )
