"""What /proc tells about processes: which is which beyond doubt, which belong to a job, and how to end them."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from clusterctl.errors import Unavailable

JOB_VARIABLE = "CLUSTERCTL_JOB_TOKEN"
"""The environment variable by which every process of a local job is known, whatever session it moved to."""

_PATIENCE = 10.0
"""Seconds that killed processes get to vanish. One in an uninterruptible wait (dead NFS, dying GPU) may not."""


@dataclass(frozen=True)
class Process:
    """A process beyond doubt: numbers are reused, a number with its start (clock ticks since boot) is not."""

    pid: int
    started: int


@dataclass(frozen=True)
class Place:
    """Where process numbers have a meaning: this machine, since this boot, in this container."""

    host: str
    boot_id: str
    pid_namespace: str


@cache
def here() -> Place:
    """The place of this process."""
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return Place(os.uname().nodename, boot_id, str(Path("/proc/self/ns/pid").readlink()))


def identify(pid: int) -> Process | None:
    """The process that has this number now, also when it is a zombie; None when there is none."""
    stat = _stat(pid)
    return Process(pid, stat.started) if stat else None


def myself() -> Process:
    """The calling process."""
    stat = _stat(os.getpid())
    if stat is None:
        raise Unavailable("/proc is not mounted here", hint="jobs without Slurm need Linux with /proc")
    return Process(os.getpid(), stat.started)


def alive(process: Process) -> bool:
    """It exists and is no zombie."""
    stat = _stat(process.pid)
    return stat is not None and stat.started == process.started and not stat.dead


def send(process: Process, signum: int) -> None:
    """Send a signal to this process and to no later one with its number. Nothing happens when it is gone.

    Raises:
        PermissionError: it is another user's.
    """
    if alive(process):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signum)


def job_processes(token: str) -> list[Process]:
    """The living processes of a job, but for the calling one.

    Those with the job's token in their environment and all that descend from them, whatever their session. Not
    what carries the token of another job: a job may submit jobs.
    """
    table = {pid: stat for pid in _pids() if (stat := _stat(pid)) and not stat.dead}
    tokens = {pid: _token(pid) for pid in table}
    children: dict[int, list[int]] = defaultdict(list)
    for pid, stat in table.items():
        children[stat.parent].append(pid)
    found: set[int] = set()
    todo = [pid for pid, its in tokens.items() if its == token]
    while todo:
        pid = todo.pop()
        if pid not in found:
            found.add(pid)
            todo += [child for child in children[pid] if tokens[child] in (None, token)]
    return [Process(pid, table[pid].started) for pid in found - {os.getpid()}]


def end_all(token: str, *, grace: float) -> list[Process]:
    """End every process of a job: TERM, after ``grace`` seconds (0: at once) KILL. Returns those that do not die."""
    left = job_processes(token)
    if grace:
        _send_all(left, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while left and time.monotonic() < deadline:
        time.sleep(0.1)
        left = job_processes(token)
    deadline = time.monotonic() + _PATIENCE
    while left and time.monotonic() < deadline:
        _send_all(left, signal.SIGKILL)
        time.sleep(0.1)
        left = job_processes(token)
    return left


def memory_kills() -> int:
    """How often the kernel killed a process on this machine because memory ran out, since the boot; 0 if untold."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            name, _, number = line.partition(" ")
            if name == "oom_kill":
                return int(number)
    return 0


@dataclass(frozen=True)
class _Stat:
    parent: int
    started: int
    dead: bool


def _stat(pid: int) -> _Stat | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # proc(5): pid (name) state ppid ... starttime is field 22. The name may hold spaces and parentheses.
    state, parent, *rest = text.rpartition(b")")[2].split()
    return _Stat(int(parent), int(rest[17]), state in (b"Z", b"X"))


def _token(pid: int) -> str | None:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None
    wanted = JOB_VARIABLE.encode() + b"="
    for entry in environment.split(b"\0"):
        if entry.startswith(wanted):
            return entry.removeprefix(wanted).decode(errors="replace")
    return None


def _pids() -> list[int]:
    return [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdecimal()]


def _send_all(processes: list[Process], signum: int) -> None:
    for process in processes:
        with contextlib.suppress(PermissionError):
            send(process, signum)
