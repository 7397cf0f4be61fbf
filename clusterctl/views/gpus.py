"""How GPUs look in a terminal, on 80 columns and without colour too: a word says whatever a colour says."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from clusterctl.durations import words
from clusterctl.hardware import Gpu, Lease, Machine
from clusterctl.views.cells import gib, plain, table
from clusterctl.views.cluster import cluster_view
from clusterctl.views.machine import STYLES, picture, state

if TYPE_CHECKING:
    from clusterctl.commands.gpus import GpusResult


def gpus_view(result: GpusResult) -> RenderableType:
    """Both halves of what ``clusterctl gpus`` found, or the reason why one is missing."""
    parts: list[RenderableType] = []
    if result.machine is not None:
        parts.append(machine_view(result.machine, result.leases))
    else:
        parts.append(plain(f"This machine: {result.machine_problem}"))
    if result.nodes is not None:
        parts += ["", cluster_view(result.nodes, result.jobs or (), result.use)]
    if result.cluster_problem is not None:
        parts += ["", plain(f"Cluster: {result.cluster_problem}", "yellow")]
    return Group(*parts)


# --- this machine -----------------------------------------------------------------------------


def machine_view(machine: Machine, leases: Sequence[Lease] = ()) -> RenderableType:
    """The GPUs of one machine: a picture, a table, what is wrong with some of them, who holds and who uses them."""
    held = {lease.uuid: lease for lease in leases}
    parts: list[RenderableType] = [_headline(machine, held)]
    if drawn := picture(machine, held):
        parts += ["", *drawn, ""]
    if machine.gpus:
        parts.append(_gpu_table(machine.gpus, held))
    parts += _troubles(machine.gpus)
    if machine.hidden:
        parts.append(plain(f"not shown: {machine.hidden} that may not be opened here (a job sees its own)", "dim"))
    parts += _holders(machine.gpus, held)
    if any(gpu.processes for gpu in machine.gpus):
        parts += ["", _process_table(machine.gpus)]
    return Group(*parts)


def _headline(machine: Machine, held: Mapping[str, Lease]) -> Text:
    versions = [f"driver {machine.driver or 'unknown'}"] + ([f"CUDA {machine.cuda}"] if machine.cuda else [])
    counts = Counter(state(gpu, held) for gpu in machine.gpus)
    found = ", ".join(f"{counts[word]} {word}" for word in STYLES if counts[word]) or "no GPU"
    return Text.assemble((machine.hostname, "bold"), f" ({', '.join(versions)}): {found}")


def _gpu_table(gpus: Sequence[Gpu], held: Mapping[str, Lease]) -> Table:
    rows = table("GPU>", "UUID", "NAME", "GIB USED>", "LOAD>", "°C>", "W>", "STATE")
    for gpu in gpus:
        word = state(gpu, held)
        rows.add_row(
            str(gpu.index),
            plain((gpu.uuid or "-")[:12]),
            plain((gpu.name or "-").removeprefix("NVIDIA ")),
            _of(gib(gpu.memory_used), gib(gpu.memory_total)),
            "-" if gpu.utilization is None else f"{gpu.utilization}%",
            "-" if gpu.temperature is None else str(gpu.temperature),
            _of(_watts(gpu.power_w), _watts(gpu.power_limit_w)),
            Text(word, STYLES[word]),
        )
    return rows


def _troubles(gpus: Sequence[Gpu]) -> list[RenderableType]:
    """A line for each problem and warning, with all the GPUs that have it."""
    problems: dict[str, list[int]] = {}
    warnings: dict[str, list[int]] = {}
    for gpu in gpus:
        if gpu.problem is not None:
            problems.setdefault(gpu.problem, []).append(gpu.index)
        for warning in gpu.warnings:
            warnings.setdefault(warning, []).append(gpu.index)
    lines = [plain(f"unusable: {_numbers(where)}: {what}", "red") for what, where in problems.items()]
    return [
        *lines,
        *(plain(f"warning: {_numbers(where)}: {what}", "yellow") for what, where in warnings.items()),
    ]


def _holders(gpus: Sequence[Gpu], held: Mapping[str, Lease]) -> list[RenderableType]:
    """A line for each run that holds leases: its name in full, whose it is, since when."""
    runs: dict[tuple[str, str], list[int]] = {}
    since: dict[tuple[str, str], float] = {}
    for gpu in gpus:
        if lease := held.get(gpu.uuid or ""):
            run = (lease.holder, lease.user)
            runs.setdefault(run, []).append(gpu.index)
            since[run] = lease.since
    return [
        plain(f"held: {_numbers(cards)}: {run[0] or 'a job'} ({run[1]}), for {words(time.time() - since[run])}")
        for run, cards in runs.items()
    ]


def _numbers(indices: Iterable[int]) -> str:
    numbers = sorted(set(indices))
    return ("GPU " if len(numbers) == 1 else "GPUs ") + ", ".join(map(str, numbers))


def _process_table(gpus: Sequence[Gpu]) -> Table:
    rows = table("GPU>", "PID>", "USER", "GIB>", "COMMAND")
    for gpu in gpus:
        # The instances of a split card list its processes again, with the right one of them.
        for process in () if gpu.mig else gpu.processes:
            command = plain(process.command or "-")
            command.no_wrap, command.overflow = True, "ellipsis"
            pid, user, memory = str(process.pid), plain(process.user or "-"), gib(process.memory)
            rows.add_row(str(gpu.index), pid, user, memory, command)
    return rows


# --- cells ------------------------------------------------------------------------------------


def _of(part: str, whole: str) -> str:
    return part if part == whole == "-" else f"{part}/{whole}"


def _watts(power: float | None) -> str:
    return "-" if power is None else f"{power:.0f}"
