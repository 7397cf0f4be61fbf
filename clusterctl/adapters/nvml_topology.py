"""How the GPUs of this machine are joined, by NVML: NVLink, the way over PCIe, the memory node (NUMA).

For ``nvml.py``, which has the driver open. A question that the driver does not answer leaves its field unknown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import pynvml

from clusterctl.hardware import Pair, PciePath

_PATHS: Mapping[int, PciePath] = {
    pynvml.NVML_TOPOLOGY_INTERNAL: "PIX",  # two GPUs on one board, as of an A16
    pynvml.NVML_TOPOLOGY_SINGLE: "PIX",
    pynvml.NVML_TOPOLOGY_MULTIPLE: "PXB",
    pynvml.NVML_TOPOLOGY_HOSTBRIDGE: "PHB",
    pynvml.NVML_TOPOLOGY_NODE: "NODE",
    pynvml.NVML_TOPOLOGY_SYSTEM: "SYS",
}

_NUMA_WORDS = 4
"""Words of 64 bits in which NVML may set the bit of a memory node."""


def pairs(handles: Mapping[int, Any]) -> tuple[Pair, ...]:
    """Every two of these cards, of which the driver tells anything. ``handles`` by index."""
    ends = {index: _link_ends(handle) for index, handle in handles.items()}
    buses = {index: _bus(_ask(pynvml.nvmlDeviceGetPciInfo_v3, handle)) for index, handle in handles.items()}
    found = []
    for one, other in combinations(sorted(handles), 2):
        level = _ask(pynvml.nvmlDeviceGetTopologyCommonAncestor, handles[one], handles[other])
        nvlinks = ends[one][buses[other]] or _through_switch(ends[one], ends[other], set(buses.values()))
        found.append(Pair((one, other), nvlinks, None if level is None else _PATHS.get(level)))
    return tuple(pair for pair in found if pair.nvlinks or pair.pcie)


def _link_ends(handle: Any) -> Counter[str | None]:
    """The PCI addresses at the other ends of a card's active links, with the number of links to each."""
    ends: Counter[str | None] = Counter()
    for link in range(pynvml.NVML_NVLINK_MAX_LINKS):
        active = _ask(pynvml.nvmlDeviceGetNvLinkState, handle, link)
        if active and (end := _bus(_ask(pynvml.nvmlDeviceGetNvLinkRemotePciInfo, handle, link))):
            ends[end] += 1
    return ends


def _through_switch(one: Counter[str | None], other: Counter[str | None], cards: set[str | None]) -> int:
    """Links of the card that has fewer to the switches that both reach."""
    switches = (one.keys() & other.keys()) - cards
    return min(sum(ends[switch] for switch in switches) for ends in (one, other))


def numa_node(handle: Any, bus_id: str | None) -> int | None:
    """The memory node next to a card: the driver's word, else the kernel's. None: one node only, or not known."""
    words = _ask(pynvml.nvmlDeviceGetMemoryAffinity, handle, _NUMA_WORDS, pynvml.NVML_AFFINITY_SCOPE_NODE)
    nodes = [64 * n + bit for n, word in enumerate(words or ()) for bit in range(64) if word >> bit & 1]
    if len(nodes) == 1:
        return nodes[0]
    if bus_id is None:
        return None
    # NVML writes the domain with eight digits, the kernel with four.
    path = Path("/sys/bus/pci/devices") / bus_id.lower()[-12:] / "numa_node"
    try:
        node = int(path.read_text())
    except (OSError, ValueError):
        return None
    return node if node >= 0 else None


def _bus(pci: Any) -> str | None:
    return str(pci.busId).upper() if pci is not None else None


def _ask(question: Callable[..., Any], *of: Any) -> Any:
    try:
        return question(*of)
    except pynvml.NVMLError:
        return None
