"""How GPUs look in a terminal, on 80 columns and without colour too: a word says whatever a colour says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from clusterctl.model import Gpu, Machine, Node

if TYPE_CHECKING:
    from clusterctl.commands.gpus import GpusResult

_GIB = 1024**3
_STYLES = {"free": "green", "in use": "cyan", "split by MIG": "dim", "unusable": "bold red"}


def gpus_view(result: GpusResult) -> RenderableType:
    """Both halves of what ``clusterctl gpus`` found, or the reason why one is missing."""
    parts: list[RenderableType] = []
    if result.machine is not None:
        parts.append(machine_view(result.machine))
    else:
        parts.append(_plain(f"This machine: {result.machine_problem}"))
    if result.nodes is not None:
        parts += ["", cluster_view(result.nodes)]
    elif result.cluster_problem is not None:
        parts += ["", _plain(f"Cluster: {result.cluster_problem}", "yellow")]
    return Group(*parts)


# --- this machine -----------------------------------------------------------------------------


def machine_view(machine: Machine) -> RenderableType:
    """The GPUs of one machine: a table, then what is wrong with some of them, then who computes there."""
    parts: list[RenderableType] = [_headline(machine)]
    if machine.gpus:
        parts.append(_gpu_table(machine.gpus))
    parts += _troubles(machine.gpus)
    if machine.hidden:
        parts.append(_plain(f"not shown: {machine.hidden} that may not be opened here (a job sees its own)", "dim"))
    if any(gpu.processes for gpu in machine.gpus):
        parts += ["", _process_table(machine.gpus)]
    return Group(*parts)


def _headline(machine: Machine) -> Text:
    versions = [f"driver {machine.driver or 'unknown'}"] + ([f"CUDA {machine.cuda}"] if machine.cuda else [])
    counts = Counter(_state(gpu) for gpu in machine.gpus)
    found = ", ".join(f"{counts[state]} {state}" for state in _STYLES if counts[state]) or "no GPU"
    return Text.assemble((machine.hostname, "bold"), f" ({', '.join(versions)}): {found}")


def _state(gpu: Gpu) -> str:
    if gpu.problem is not None:
        return "unusable"
    if gpu.mig:
        return "split by MIG"
    return "in use" if gpu.busy else "free"


def _gpu_table(gpus: Sequence[Gpu]) -> Table:
    table = _table("GPU>", "UUID", "NAME", "GIB USED>", "LOAD>", "°C>", "W>", "STATE")
    for gpu in gpus:
        state = _state(gpu)
        table.add_row(
            str(gpu.index),
            _plain((gpu.uuid or "-")[:12]),
            _plain((gpu.name or "-").removeprefix("NVIDIA ")),
            _of(_gib(gpu.memory_used), _gib(gpu.memory_total)),
            "-" if gpu.utilization is None else f"{gpu.utilization}%",
            "-" if gpu.temperature is None else str(gpu.temperature),
            _of(_watts(gpu.power_w), _watts(gpu.power_limit_w)),
            Text(state, _STYLES[state]),
        )
    return table


def _troubles(gpus: Sequence[Gpu]) -> list[RenderableType]:
    """A line for each problem and warning, with all the GPUs that have it."""
    problems: dict[str, list[int]] = {}
    warnings: dict[str, list[int]] = {}
    for gpu in gpus:
        if gpu.problem is not None:
            problems.setdefault(gpu.problem, []).append(gpu.index)
        for warning in gpu.warnings:
            warnings.setdefault(warning, []).append(gpu.index)
    lines = [_plain(f"unusable: {_numbers(where)}: {what}", "red") for what, where in problems.items()]
    return [
        *lines,
        *(_plain(f"warning: {_numbers(where)}: {what}", "yellow") for what, where in warnings.items()),
    ]


def _numbers(indices: Iterable[int]) -> str:
    numbers = sorted(set(indices))
    return ("GPU " if len(numbers) == 1 else "GPUs ") + ", ".join(map(str, numbers))


def _process_table(gpus: Sequence[Gpu]) -> Table:
    table = _table("GPU>", "PID>", "USER", "GIB>", "COMMAND")
    for gpu in gpus:
        # The instances of a split card list its processes again, with the right one of them.
        for process in () if gpu.mig else gpu.processes:
            command = _plain(process.command or "-")
            command.no_wrap, command.overflow = True, "ellipsis"
            pid, user, memory = str(process.pid), _plain(process.user or "-"), _gib(process.memory)
            table.add_row(str(gpu.index), pid, user, memory, command)
    return table


# --- the cluster ------------------------------------------------------------------------------


def cluster_view(nodes: Sequence[Node]) -> RenderableType:
    """The GPUs of a Slurm cluster: by type, by node, and why some nodes take no work."""
    with_gpus = [node for node in nodes if node.gpus]
    parts: list[RenderableType] = [_cluster_headline(nodes, with_gpus)]
    if with_gpus:
        parts += [_type_table(with_gpus), "", _node_table(with_gpus)]
    parts += [
        _plain(f"{node.name} takes no new jobs: {node.reason or node.state}", "red")
        for node in with_gpus
        if not node.usable
    ]
    return Group(*parts)


def _cluster_headline(nodes: Sequence[Node], with_gpus: Sequence[Node]) -> Text:
    without = len(nodes) - len(with_gpus)
    rest = f", {without} without" if without else ""
    return Text.assemble(("Cluster", "bold"), f": {len(with_gpus)} nodes with GPUs{rest}")


def _type_table(nodes: Sequence[Node]) -> Table:
    """``free`` counts on nodes that take work; what is idle on the others is ``out``."""
    numbers: dict[str, Counter[str]] = {}
    for node in nodes:
        for gpu_type, total, used in _by_type(node):
            counts = numbers.setdefault(gpu_type, Counter())
            counts.update(nodes=1, total=total, used=used)
            counts["free" if node.usable else "out"] += total - used
    columns = ("nodes", "total", "used", "free", "out")
    table = _table("GPU TYPE", *(f"{column.upper()}>" for column in columns))
    for gpu_type, counts in sorted(numbers.items()):
        table.add_row(_plain(gpu_type), *(str(counts[column]) for column in columns))
    return table


def _node_table(nodes: Sequence[Node]) -> Table:
    table = _table("NODE", "GPU TYPE", "TOTAL>", "USED>", "FREE>", "STATE", "PARTITIONS")
    for node in nodes:
        for gpu_type, total, used in _by_type(node):
            table.add_row(
                _plain(node.name),
                _plain(gpu_type),
                str(total),
                str(used),
                str(total - used if node.usable else 0),
                _plain(node.state, "" if node.usable else "red"),
                _plain(", ".join(node.partitions)),
            )
    return table


def _by_type(node: Node) -> list[tuple[str, int, int]]:
    """A node's GPUs as (type, total, used); a type that the site does not name is 'any'."""
    total: Counter[str] = Counter()
    used: Counter[str] = Counter()
    for gres in node.gpus:
        total[gres.gpu_type or "any"] += gres.count
    for gres in node.gpus_used:
        used[gres.gpu_type or "any"] += gres.count
    return [(gpu_type, total[gpu_type], used[gpu_type]) for gpu_type in total]


# --- cells ------------------------------------------------------------------------------------


def _table(*columns: str) -> Table:
    """A table without lines. A column whose name ends in '>' holds numbers and stands to the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        name = column.removesuffix(">")
        table.add_column(name, justify="right" if name != column else "left", no_wrap=name != column)
    return table


def _plain(text: str, style: str = "") -> Text:
    """Text from outside as it is: no markup in it, no control character reaches the terminal."""
    return Text("".join(c if c.isprintable() else "?" for c in text), style=style)


def _of(part: str, whole: str) -> str:
    return part if part == whole == "-" else f"{part}/{whole}"


def _gib(size: int | None) -> str:
    return "-" if size is None else f"{size / _GIB:.1f}"


def _watts(power: float | None) -> str:
    return "-" if power is None else f"{power:.0f}"
