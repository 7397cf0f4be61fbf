"""A machine with the GPUs you like: ``fake_nvml_env`` gives the environment in which NVML shows them.

The library is loaded when a process starts, so a test asks from a child process with this environment::

    env = os.environ | fake_nvml_env(tmp_path, [A800, replace(A40, faults="ecc=3")])
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCE = HERE / "nvml.c"
CACHE = HERE / ".cache"
FLAGS = ["-O1", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-shared", "-fPIC"]


@dataclass(frozen=True)
class Card:
    """One GPU. Memory in MiB; ``faults`` and ``place`` in the words of nvml.c; ``processes``: pids with their MiB."""

    name: str
    capability: str
    memory: int
    used: int = 0
    utilization: int = 0
    temperature: int = 31
    watts: int = 32
    faults: str = ""
    processes: Mapping[int, int] = field(default_factory=dict)
    place: str = ""


A800 = Card("NVIDIA A800 80GB PCIe", "8.0", 81920)
A40 = Card("NVIDIA A40", "8.6", 46068)
FLEET = (A800, A800, A800, A800, A40, A40, A40, A40)

MIXED_SERVER = (
    *(replace(A800, place=f"numa=0,bridge={pair}") for pair in (1, 1, 2, 2)),
    *(replace(A40, place=f"numa=1,switch={switch}") for switch in (2, 2, 3, 3)),
)
"""A server as there are many: A800s in pairs under NVLink bridges, A40s in pairs under PCIe switches."""


def fake_nvml_env(
    folder: Path, cards: Sequence[Card] = FLEET, *, old_driver: bool = False, init_error: int | None = None
) -> dict[str, str]:
    """The variables to add to a process's environment so that NVML shows it these cards.

    The fleet's table is written into ``folder``, where the file ``nvml-calls`` gets a line for each nvmlInit
    and nvmlShutdown. ``init_error`` is the NVML error code that nvmlInit answers with.
    """
    table = folder / "fleet.tsv"
    table.write_text("".join(_line(card) + "\n" for card in cards))
    search_path = [str(_library(old_driver).parent), os.getenv("LD_LIBRARY_PATH")]
    env = {
        "LD_LIBRARY_PATH": ":".join(filter(None, search_path)),
        "FAKE_NVML_FLEET": str(table),
        "FAKE_NVML_CALLS": str(folder / "nvml-calls"),
    }
    return env if init_error is None else env | {"FAKE_NVML_INIT_ERROR": str(init_error)}


def _line(card: Card) -> str:
    processes = ",".join(f"{pid}={mib}" for pid, mib in card.processes.items())
    numbers = (card.memory, card.used, card.utilization, card.temperature, card.watts)
    faults = ",".join(filter(None, (card.faults, card.place)))
    return "\t".join([card.name, card.capability, *map(str, numbers), faults, processes])


def _library(old_driver: bool) -> Path:
    """The built library, compiled once for each state of its source."""
    flags = [*FLAGS, "-DOLD_DRIVER"] if old_driver else FLAGS
    state = hashlib.sha256(SOURCE.read_bytes() + " ".join(flags).encode()).hexdigest()[:16]
    library = CACHE / state / "libnvidia-ml.so.1"
    if library.exists():
        return library
    compiler = shutil.which("cc")
    if compiler is None:
        raise RuntimeError("the fake NVML needs a C compiler: apt-get install gcc libc6-dev")
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        fresh = Path(scratch) / library.name
        subprocess.run([compiler, *flags, "-o", fresh, SOURCE], check=True)
        # Test processes may build at the same time: each puts a whole file in place.
        fresh.replace(library)
    return library
