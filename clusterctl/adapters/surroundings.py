"""Looking around on this machine: modules, Python environments, scratch folders, the hub. Nothing waits for long."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from clusterctl.adapters import process
from clusterctl.errors import Unavailable
from clusterctl.paths import is_dir, is_file
from clusterctl.surroundings import Hub, Python, Scratch

_Answer = TypeVar("_Answer")

HUB = "https://huggingface.co"
_NEEDED = ("trainers", "torch")
_PATIENCE = 4.0
"""Seconds for what a dead file server or a silent network would hold for ever."""


def within(seconds: float, question: Callable[[], _Answer]) -> _Answer | None:
    """The answer, or None where it does not come in time or with an OSError. The question may go on for ever."""
    answers: list[_Answer] = []

    def ask() -> None:
        try:
            answers.append(question())
        except (OSError, ValueError):
            return

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return answers[0] if answers else None


# --- modules ----------------------------------------------------------------------------------

_OF_USE = re.compile(r"cuda|cudnn|nccl|conda|mamba|miniforge|python|gcc|pytorch", re.IGNORECASE)
_MODULE = re.compile(r"[\w.+-]+(?:/[\w.+-]+)+")


def modules() -> tuple[tuple[str, ...], str]:
    """What a login shell's ``module avail`` lists, and why it lists nothing."""
    argv = ["timeout", "-k", "1", "8", "bash", "-lc", "module -t avail 2>&1"]
    try:
        done = process.run(argv, timeout=10)
    except Unavailable as e:
        return (), f"modules could not be listed: {e.message}"
    if done.returncode in (124, 137):
        return (), "modules could not be listed: a login shell took more than 8 s"
    return parse_modules(done.stdout), ""


def parse_modules(answer: str) -> tuple[str, ...]:
    """The names that could matter to training, of ``module -t avail``; headings and what a login shell says are not."""
    words = (line.strip().removesuffix("(default)").removesuffix("(D)") for line in answer.split("\n"))
    return tuple(dict.fromkeys(word for word in words if _MODULE.fullmatch(word) and _OF_USE.search(word)))


def loaded_modules() -> tuple[str, ...]:
    """Those of the modules loaded in this shell that could matter to training."""
    return tuple(name for name in os.environ.get("LOADEDMODULES", "").split(":") if _OF_USE.search(name))


# --- Python -----------------------------------------------------------------------------------


def pythons() -> tuple[Python, ...]:
    """The environments at hand: first the one to take. The Python that runs us goes before others that can train."""
    found = [_described(Path(sys.prefix), "runs clusterctl", _ours())]
    for seen, prefix in _others():
        if is_file(prefix / "bin/python") and prefix.resolve() != Path(sys.prefix).resolve():
            found.append(_described(prefix, seen, _has(prefix / "bin/python")))
    return tuple(sorted(found, key=lambda one: not one.trains))


def _others() -> Iterable[tuple[str, Path]]:
    for variable in ("CONDA_PREFIX", "VIRTUAL_ENV"):
        if prefix := os.environ.get(variable):
            yield f"active here ({variable})", Path(prefix)
    if is_file(Path("pyproject.toml")) and is_file(Path("uv.lock")):
        yield "a uv project in this folder", Path.cwd() / ".venv"


def _described(prefix: Path, seen: str, has: tuple[str, ...]) -> Python:
    if is_dir(prefix / "conda-meta"):
        if shutil.which("conda") is None:  # mamba and micromamba make such environments too, and have other words
            return Python("python", str(prefix / "bin/python"), f"{seen}; there is no `conda` to activate it", has)
        named = os.environ.get("CONDA_DEFAULT_ENV", "")
        active = os.environ.get("CONDA_PREFIX") == str(prefix) and named
        return Python("conda", named if active else str(prefix), seen, has)
    if is_file(prefix / "pyvenv.cfg"):
        if prefix.name == ".venv" and is_file(prefix.parent / "uv.lock"):
            return Python("uv", str(prefix.parent), seen, has)
        return Python("venv", str(prefix), seen, has)
    if prefix == Path(sys.prefix):
        return Python("none", sys.executable, seen, has)
    return Python("python", str(prefix / "bin/python"), seen, has)


def _ours() -> tuple[str, ...]:
    return tuple(name for name in _NEEDED if importlib.util.find_spec(name))


def _has(python: Path) -> tuple[str, ...]:
    code = f"import importlib.util as u; print(*(n for n in {_NEEDED!r} if u.find_spec(n)))"
    try:
        done = process.run([str(python), "-I", "-c", code], timeout=10)
    except Unavailable:
        return ()
    return tuple(word for word in done.stdout.split() if word in _NEEDED)


def conda_environments() -> tuple[str, ...]:
    """The environments that conda has noted down for this user."""
    listing = Path.home() / ".conda" / "environments.txt"
    lines = within(_PATIENCE, lambda: listing.read_text(encoding="utf-8", errors="replace").split("\n")) or []
    return tuple(line for line in lines if line.startswith("/") and line.isprintable())


# --- scratch ----------------------------------------------------------------------------------

_VARIABLES = ("SCRATCH", "SCRATCHDIR", "SCRATCH_DIR", "PSCRATCH", "WORK", "WORKDIR", "PROJECT")
_MOUNTS = ("/scratch", "/work", "/data", "/lustre", "/gpfs", "/beegfs", "/fast", "/mnt/scratch", "/mnt/data", "/ssd")


def scratch() -> tuple[Scratch, ...]:
    """Folders for large files by the usual variables and mount points that may be written, most free room first."""
    user = process.own_user()
    named = [(Path(value), f"${name}") for name in _VARIABLES if (value := os.environ.get(name, "")).startswith("/")]
    usual = [(Path(mount) / below, "a usual place") for mount in _MOUNTS for below in (user, "")]
    found: dict[str, Scratch] = {}

    def look() -> None:
        for path, seen in (*named, *usual):
            if path.is_dir() and os.access(path, os.W_OK | os.X_OK):
                found.setdefault(str(path), Scratch(str(path), seen, shutil.disk_usage(path).free))

    within(_PATIENCE, look)
    # A folder of one's own hides the one above it.
    paths = list(found)
    own = [found[path] for path in paths if not any(other.startswith(f"{path}/") for other in paths)]
    return tuple(sorted(own, key=lambda one: (not one.seen.startswith("$"), -one.free)))


# --- the hub ----------------------------------------------------------------------------------


def hub() -> Hub:
    """What the variables say of the hub, and whether it answers within a few seconds."""
    endpoint = without_password(os.environ.get("HF_ENDPOINT", "").strip())
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON")
    return Hub(
        endpoint=endpoint or None,
        reached=None if offline else within(_PATIENCE, lambda: _answers(endpoint or HUB)) or False,
        home=os.environ.get("HF_HOME", "").strip() or None,
        offline=offline,
    )


def without_password(address: str) -> str:
    """The address less what stands before an @ in its host. What is no address is nothing."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return ""
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _answers(address: str) -> bool:
    """Any answer will do, also that there is no such page."""
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    if not address.startswith(("http://", "https://")):
        return False
    try:
        with urlopen(Request(address, method="HEAD"), timeout=_PATIENCE - 1):  # noqa: S310 - checked above
            return True
    except HTTPError:
        return True
    except HTTPException:
        return False


# --- keys -------------------------------------------------------------------------------------


def set_variables(names: Iterable[str]) -> tuple[str, ...]:
    """Those of the variables that are set. Their values are looked at for nothing else."""
    return tuple(name for name in names if os.environ.get(name))
