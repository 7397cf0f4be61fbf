"""The folders that a run writes to. What matters is tried with a real file that is never left behind."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from trainers.doctor.check import Asked, Check, State

_GIB, _MIB = 1024**3, 1024**2

FREE = (1 * _GIB, 20 * _GIB)
"""Free bytes below which a check fails, or warns: one LoRA run writes below 1 GiB, one checkpoint of all weights and
optimiser states of a 1.5B model 18 GiB (12 bytes a parameter)."""

INODES = (100, 10_000)
"""Free inodes below which a check fails, or warns: a run makes some hundred files."""

WRITTEN = 64 * _MIB
WRITE_TIME = 3.0
"""The write of ``write speed`` ends after so many bytes or seconds, whichever comes first."""

SLOW = 50 * _MIB
"""Bytes/s below which a checkpoint of 18 GiB takes more than six minutes."""

SKEW = 5.0
"""Seconds between two clocks from which make, tar and trackers get confused."""

_FULL = {errno.ENOSPC: "no space is left", errno.EDQUOT: "the quota is used up"}


def check_output_root(asked: Asked) -> Iterator[Check]:
    """Whether runs can be written there, and how much and how fast."""
    root = Path(asked.output_root)
    folder = existing(root)
    try:
        with tempfile.TemporaryFile(dir=folder, prefix=".clusterctl-doctor-"):
            pass
    except OSError as e:
        words = _FULL.get(e.errno or 0) or e.strerror
        mend = "remove old runs there" if e.errno in _FULL else "correct its permissions"
        remedy = f"{mend}, or name another `output_root` in clusterctl.yaml"
        yield Check("output root", "fail", f"{folder} cannot be written: {words}", remedy)
    else:
        made = "" if folder == root else " (made by the first run)"
        yield Check("output root", "ok", f"{root} can be written{made}")
        yield write_speed(folder)
        yield clock(folder)
    yield from room(folder)


def existing(path: Path) -> Path:
    """The path, or the folder above it that exists."""
    return next((p for p in (path, *path.parents) if p.exists()), Path("/"))


def room(folder: Path) -> Iterator[Check]:
    """Free bytes and inodes of the file system."""
    at = os.statvfs(folder)
    free, size = at.f_bavail * at.f_frsize, at.f_blocks * at.f_frsize
    remedy = "remove old checkpoints and runs, or name another `output_root` in clusterctl.yaml"
    state = _below(free, FREE)
    yield Check("free space", state, f"{_size(free)} of {_size(size)} at {folder}", "" if state == "ok" else remedy)
    if at.f_files:
        state = _below(at.f_favail, INODES)
        remedy = "remove folders of many small files there: old runs, environments, caches"
        evidence = f"{at.f_favail} of {at.f_files} files more can be made at {folder}"
        yield Check("inodes", state, evidence, "" if state == "ok" else remedy)


def write_speed(folder: Path) -> Check:
    """How fast a file grows, with fsync: a small bounded write."""
    block, written, started = os.urandom(_MIB), 0, time.monotonic()
    try:
        with tempfile.TemporaryFile(dir=folder, prefix=".clusterctl-doctor-", buffering=0) as file:
            while written < WRITTEN and time.monotonic() - started < WRITE_TIME:
                written += file.write(block)
            os.fsync(file.fileno())
    except OSError as e:
        words = _FULL.get(e.errno or 0) or e.strerror
        remedy = "remove old runs, ask for a larger quota, or name another `output_root` in clusterctl.yaml"
        return Check("write speed", "fail", f"{words} at {folder} after {_size(written)}", remedy)
    speed = written / max(1e-6, time.monotonic() - started)
    evidence = f"{speed / _MIB:.0f} MiB/s at {folder} ({_size(written)} with fsync)"
    if speed < SLOW:
        remedy = "save less often (`output.save_steps`), or name a faster `output_root` in clusterctl.yaml"
        return Check("write speed", "warn", evidence, remedy)
    return Check("write speed", "ok", evidence)


def clock(folder: Path) -> Check:
    """This machine's clock against that of the file system, which a file's time comes from."""
    with tempfile.TemporaryFile(dir=folder, prefix=".clusterctl-doctor-") as file:
        ahead = time.time() - os.fstat(file.fileno()).st_mtime
    evidence = f"{abs(ahead):.1f} s {'ahead of' if ahead >= 0 else 'behind'} the file system at {folder}"
    if abs(ahead) < SKEW:
        return Check("clock", "ok", evidence, value=ahead)
    return Check("clock", "warn", evidence, "ask the administrator to set the clock (chrony or NTP)", ahead)


def check_home(asked: Asked) -> Iterator[Check]:
    """Whether the home directory takes a file, and what the quota says. A full one breaks caches and logins."""
    home = Path.home()
    remedy = "remove caches there (du -sh ~/.cache/*), and set `hugging_face.home` in clusterctl.yaml to a larger place"
    try:
        with tempfile.TemporaryFile(dir=home, buffering=0) as file:
            file.write(b"x" * _MIB)
            os.fsync(file.fileno())
    except OSError as e:
        words = _FULL.get(e.errno or 0) or e.strerror
        yield Check("home", "fail" if e.errno in _FULL else "warn", f"{home} cannot be written: {words}", remedy)
        return
    used = quota()
    words = f"; {used:.0%} of the quota used" if used is not None else ""
    state: State = "warn" if used is not None and used > 0.9 else "ok"
    yield Check("home", state, f"{home} can be written{words}", remedy if state == "warn" else "")


def quota() -> float | None:
    """The largest used share of the user's quotas, of blocks or files, as ``quota -w`` (quota(1)) tells; else None."""
    program = shutil.which("quota")
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, "-w"], capture_output=True, encoding="utf-8", errors="replace", timeout=10, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    shares = []
    for line in done.stdout.splitlines():
        # filesystem blocks quota limit [grace] files quota limit [grace]; a * marks what is above its quota.
        numbers = [int(word.rstrip("*")) for word in line.split()[1:] if word.rstrip("*").isdigit()]
        if len(numbers) >= 6:
            for used, soft, hard in (numbers[:3], numbers[3:6]):
                shares += [used / limit for limit in (soft or hard,) if limit]
    return max(shares, default=None)


def check_hugging_face_home(asked: Asked) -> Iterator[Check]:
    """Whether models can be kept in HF_HOME (https://huggingface.co/docs/huggingface_hub, environment variables)."""
    home = hf_home()
    folder = existing(home)
    remedy = "set `hugging_face.home` in clusterctl.yaml to a folder of yours"
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as e:
        words = _FULL.get(e.errno or 0) or e.strerror
        if offline():
            yield Check("HF_HOME", "ok", f"{home} is read only; the site is offline and downloads nothing")
        else:
            yield Check("HF_HOME", "fail", f"{folder} cannot be written: {words}", remedy)
        return
    at = os.statvfs(folder)
    free = at.f_bavail * at.f_frsize
    evidence = f"{home} can be written, {_size(free)} free"
    if free < FREE[1]:
        yield Check("HF_HOME", "warn", f"{evidence}: a 7B model takes 15 GB", remedy)
    else:
        yield Check("HF_HOME", "ok", evidence)


def hf_home() -> Path:
    """Where Hugging Face's libraries keep what they load."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("HF_HOME") or f"{cache}/huggingface").expanduser().absolute()


def offline() -> bool:
    """Whether Hugging Face's libraries ask nobody (huggingface_hub/constants.py)."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def check_temporary_files(asked: Asked) -> Iterator[Check]:
    """The folder for temporary files."""
    try:
        folder = Path(tempfile.gettempdir())
        at = os.statvfs(folder)
    except OSError as e:
        remedy = "make room in /tmp, or set TMPDIR in `env` of clusterctl.yaml"
        yield Check("temporary files", "fail", str(e.strerror), remedy)
        return
    free = at.f_bavail * at.f_frsize
    if free < _GIB:
        remedy = "make room there, or set TMPDIR in `env` of clusterctl.yaml"
        yield Check("temporary files", "warn", f"{_size(free)} free at {folder}", remedy)
    else:
        yield Check("temporary files", "ok", f"{_size(free)} free at {folder}")


def _below(number: float, limits: tuple[float, float]) -> State:
    return "fail" if number < limits[0] else "warn" if number < limits[1] else "ok"


def _size(count: float) -> str:
    return f"{count / _GIB:.1f} GiB" if count >= _GIB else f"{count / _MIB:.0f} MiB"


CHECKS = (check_output_root, check_home, check_hugging_face_home, check_temporary_files)
