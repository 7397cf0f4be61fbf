"""The machine apart from its disks: Python, cores, memory, locale, limits. Standard library only."""

from __future__ import annotations

import locale
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

from trainers.doctor.check import Asked, Check

OLDEST_PYTHON = (3, 11)
"""As ``requires-python`` of the package says."""

FILES = 1024
"""Open files below which data loaders fail with "Too many open files"; 1024 is what Linux gives by default."""

_SHM = "/dev/shm"  # noqa: S108 - its size is asked, nothing is written
SHM = 1024**3
"""Bytes of /dev/shm that data loaders and NCCL want; containers get 64 MiB unless told otherwise (docker-run(1))."""

_GIB = 1024**3


def check_python(asked: Asked) -> Iterator[Check]:
    """The interpreter that trains."""
    version = ".".join(map(str, sys.version_info[:3]))
    evidence = f"{version}, {sys.executable}"
    if sys.version_info >= OLDEST_PYTHON:
        yield Check("python", "ok", evidence)
    else:
        wanted = ".".join(map(str, OLDEST_PYTHON))
        remedy = f"make an environment with Python {wanted} or newer and name it: `environment` in clusterctl.yaml"
        yield Check("python", "fail", evidence, remedy)


def check_cores_and_memory(asked: Asked) -> Iterator[Check]:
    """The cores that this process may use, against what the job asked for, and the memory that it may use."""
    cores, limit = len(os.sched_getaffinity(0)), memory_limit()
    evidence = f"{cores} cores, {limit / _GIB:.1f} GiB of memory"
    if asked.cpus and cores < asked.cpus:
        remedy = "ask for fewer (`cpus_per_task` of the profile), or look why the job is held to fewer"
        yield Check("cores and memory", "warn", f"{evidence}; the profile asked for {asked.cpus} cores", remedy)
    else:
        yield Check("cores and memory", "ok", evidence)


_SAID, _GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def memory_limit(said: Path = _SAID, root: Path = _GROUPS) -> int:
    """Bytes that this process may use: the machine's, or less where a control group above it says so (cgroups(7))."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for group, name in _groups(said, root):
        for folder in (group, *group.parents):
            try:
                limits.append(int((folder / name).read_text()))
            except (OSError, ValueError):  # no control group, or one whose limit is `max`
                continue
    return min(limits)


def _groups(said: Path, root: Path) -> Iterator[tuple[Path, str]]:
    """The folders of this process's control groups, of both versions, with the name of the file that limits memory."""
    try:
        lines = said.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield root / path.lstrip("/"), "memory.max"
        elif "memory" in controllers.split(","):
            yield root / "memory" / path.lstrip("/"), "memory.limit_in_bytes"


def check_locale(asked: Asked) -> Iterator[Check]:
    """Whether text is UTF-8 to the programs of the job. Python alone is, whatever is set."""
    said = os.environ.get("LC_ALL") or os.environ.get("LC_CTYPE") or os.environ.get("LANG") or "C"
    remedy = "set it for all jobs: `env: {LC_ALL: C.UTF-8}` in clusterctl.yaml"
    try:
        locale.setlocale(locale.LC_ALL, "")
    except locale.Error:
        yield Check("locale", "warn", f"{said} is not installed on this machine", remedy)
        return
    finally:
        locale.setlocale(locale.LC_ALL, "C")
    if "utf-8" in said.lower() or "utf8" in said.lower():
        yield Check("locale", "ok", said)
    else:
        yield Check("locale", "warn", f"{said} is not UTF-8: other programs may break Chinese text", remedy)


def check_open_files(asked: Asked) -> Iterator[Check]:
    """``ulimit -n``."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    words = "unlimited" if soft == resource.RLIM_INFINITY else str(soft)
    if soft == resource.RLIM_INFINITY or soft >= FILES:
        yield Check("open files", "ok", words)
    else:
        remedy = f"ulimit -n {FILES} before you submit"
        if hard != resource.RLIM_INFINITY and hard < FILES:
            remedy = "ask the administrator to raise the limit (nofile in limits.conf)"
        yield Check("open files", "warn", f"{words}: data loaders need {FILES}", remedy)


def check_shared_memory(asked: Asked) -> Iterator[Check]:
    """``/dev/shm``."""
    try:
        at = os.statvfs(_SHM)
    except OSError as e:
        remedy = "in a container: mount a tmpfs there, or --ipc=host"
        yield Check("shared memory", "fail", f"{_SHM}: {e.strerror}", remedy)
        return
    size, free = at.f_blocks * at.f_frsize, at.f_bavail * at.f_frsize
    evidence = f"{_SHM} has {size / _GIB:.1f} GiB, {free / _GIB:.1f} free"
    if size < SHM:
        remedy = "in a container: --shm-size=16g; else set `optim.dataloader_num_workers` to 0"
        yield Check("shared memory", "warn", evidence, remedy)
    elif free < SHM / 4:
        yield Check("shared memory", "warn", evidence, "ls -l /dev/shm: remove what dead jobs have left there")
    else:
        yield Check("shared memory", "ok", evidence)


CHECKS = (check_python, check_cores_and_memory, check_locale, check_open_files, check_shared_memory)
