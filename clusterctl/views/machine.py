"""A picture of one machine's GPUs: what sits next to what, how it is joined, what is free and who has the rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

from rich.text import Text

from clusterctl.hardware import Gpu, Lease, Machine, Pair
from clusterctl.views.cells import plain

STYLES = {"free": "green", "in use": "cyan", "split by MIG": "dim", "unusable": "bold red"}

_GIB = 1024**3
_CELL = 20
"""Columns of a card, four of which stand side by side."""

_ROW = 4
_NVLINK, _SWITCH = "═", "─"


def state(gpu: Gpu, leases: Mapping[str, Lease]) -> str:
    """One of the words of ``STYLES``. A card that is leased is in use, also while its job still loads."""
    if gpu.problem is not None:
        return "unusable"
    if gpu.mig:
        return "split by MIG"
    return "in use" if gpu.busy or gpu.uuid in leases else "free"


def picture(machine: Machine, leases: Mapping[str, Lease]) -> list[Text]:
    """The lines of the picture; none for a machine with one card. ``leases`` by UUID."""
    cards = [gpu for gpu in machine.gpus if not (gpu.uuid or "").startswith("MIG-")]
    if len(cards) < 2:
        return []
    pairs = {pair.gpus: pair for pair in machine.pairs}
    lines: list[Text] = []
    for node, row in _rows(cards):
        if node is not None:
            lines.append(Text(f"NUMA node {node}", "bold"))
        lines += _cells(row, pairs, leases)
    return lines + _legend(cards, pairs)


def _rows(cards: Sequence[Gpu]) -> Iterable[tuple[int | None, Sequence[Gpu]]]:
    """The cards along the bus, four in a row, with their memory node before the first row of each."""
    nodes = sorted({gpu.numa_node for gpu in cards}, key=lambda node: -1 if node is None else node)
    for node in nodes:
        here = sorted((gpu for gpu in cards if gpu.numa_node == node), key=lambda gpu: (gpu.bus_id or "", gpu.index))
        for start in range(0, len(here), _ROW):
            yield node if start == 0 else None, here[start : start + _ROW]


def _cells(row: Sequence[Gpu], pairs: Mapping[tuple[int, int], Pair], leases: Mapping[str, Lease]) -> list[Text]:
    lines = [Text(no_wrap=True, overflow="crop") for _ in range(4)]
    for gpu, following in zip(row, [*row[1:], None], strict=True):
        join = _join(pairs, gpu, following) if following else " "
        title = f"{gpu.index} {gpu.gpu_type or 'unknown'}"[: _CELL - 2]
        word = state(gpu, leases)
        load = f", {gpu.utilization}%" if word == "in use" and gpu.utilization is not None else ""
        lines[0] += plain(f"{title} {join * (_CELL - len(title) - 2)} ", "bold")
        lines[1] += _cell(f"{word}{load}", STYLES[word])
        lines[2] += _cell(_free(gpu))
        lines[3] += _cell(_who(gpu, leases))
    for line in lines:
        line.rstrip()
    return [line for line in lines if line.plain]


def _cell(text: str, style: str = "") -> Text:
    cell = plain(text, style)
    cell.truncate(_CELL - 2, overflow="ellipsis")
    cell.pad_right(_CELL - cell.cell_len)
    return cell


def _free(gpu: Gpu) -> str:
    if gpu.capacity is None or gpu.memory_used is None or not gpu.usable:
        return ""
    return f"{max(0, gpu.capacity - gpu.memory_used) / _GIB:.1f} GiB free"


def _who(gpu: Gpu, leases: Mapping[str, Lease]) -> str:
    if lease := leases.get(gpu.uuid or ""):
        return lease.holder or lease.user
    if not gpu.busy:
        return ""
    users = sorted({process.user for process in gpu.processes if process.user})
    return f"{', '.join(users) or 'unknown'}, no lease"


# --- what joins them --------------------------------------------------------------------------


def _join(pairs: Mapping[tuple[int, int], Pair], one: Gpu, other: Gpu) -> str:
    pair = pairs.get((min(one.index, other.index), max(one.index, other.index)))
    if pair and pair.nvlinks:
        return _NVLINK
    return _SWITCH if pair and pair.pcie in ("PIX", "PXB") else " "


def _legend(cards: Sequence[Gpu], pairs: Mapping[tuple[int, int], Pair]) -> list[Text]:
    """The joints in words, also those that the picture cannot draw."""
    lines = []
    for sign, name in ((_NVLINK, "NVLink"), (_SWITCH, "the same PCIe switch")):
        joined = [(a, b) for a, b in combinations(cards, 2) if _join(pairs, a, b) == sign]
        if not joined:
            continue
        sets = _sets([(a.index, b.index) for a, b in joined])
        links = {pairs[min(a.index, b.index), max(a.index, b.index)].nvlinks for a, b in joined}
        each = f" ({'-'.join(map(str, sorted({min(links), max(links)})))} links each)" if sign == _NVLINK else ""
        lines.append(Text(f"{sign * 2} {name}: " + ", ".join("-".join(map(str, one)) for one in sets) + each, "dim"))
    return lines


def _sets(joined: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Cards that reach each other, as sets."""
    sets: list[set[int]] = []
    for pair in joined:
        touched = [one for one in sets if one & set(pair)]
        sets = [one for one in sets if one not in touched] + [set(pair).union(*touched)]
    return sorted(sorted(one) for one in sets)
