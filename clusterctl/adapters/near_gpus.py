"""Which cards of a machine are near each other: by NVLink, by PCIe switch, by memory node, along the bus."""

from __future__ import annotations

from collections.abc import Sequence

from clusterctl.hardware import Gpu, Pair

_NVLINK, _SWITCH, _NODE, _FAR = range(4)
"""How far two cards are from each other."""

_BY_PCIE = {"PIX": _SWITCH, "PXB": _SWITCH, "PHB": _NODE, "NODE": _NODE, "SYS": _FAR}


class Nearness:
    """The distances of a machine's cards, as far as the driver told of them."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self._pairs = {pair.gpus: pair for pair in pairs}

    def nearest(self, free: Sequence[Gpu], number: int) -> tuple[Gpu, ...]:
        """So many of the free cards, along the bus, that are near each other and leave the others near theirs.

        A set grows from each card in turn by whatever is nearest to it; the best of these sets is taken. Trying all
        sets would take seconds on a machine with twenty cards.
        """
        row = sorted(free, key=_place)
        grown = [self._grow(first, row, number) for first in row]
        best = min(grown, key=lambda set_: (*self._spread(set_), self._torn(set_, row), _span(set_), _places(set_)))
        return tuple(sorted(best, key=_place))

    def _grow(self, first: Gpu, row: Sequence[Gpu], number: int) -> list[Gpu]:
        cards = [first]
        while len(cards) < number:
            left = [gpu for gpu in row if gpu not in cards]
            cards.append(min(left, key=lambda gpu: (*self._spread([*cards, gpu]), _span([*cards, gpu]), _place(gpu))))
        return cards

    def _spread(self, cards: Sequence[Gpu]) -> tuple[int, int]:
        """The longest distance, which a ring of cards waits for, and the sum of all."""
        ways = [self._distance(one, other) for n, one in enumerate(cards) for other in cards[:n]]
        return max(ways, default=0), sum(ways)

    def _torn(self, cards: Sequence[Gpu], row: Sequence[Gpu]) -> int:
        """How near the cards are that would be left without these neighbours."""
        others = [gpu for gpu in row if gpu not in cards]
        return sum(_FAR - self._distance(gpu, other) for gpu in cards for other in others)

    def _distance(self, one: Gpu, other: Gpu) -> int:
        pair = self._pairs.get((min(one.index, other.index), max(one.index, other.index)))
        if pair and pair.nvlinks:
            return _NVLINK
        if pair and pair.pcie:
            return _BY_PCIE[pair.pcie]
        return _NODE if one.numa_node is not None and one.numa_node == other.numa_node else _FAR


def bus(gpu: Gpu) -> int:
    """The PCI address as a number that grows along the bus: domain, bus, device."""
    if gpu.bus_id is None:
        return gpu.index
    return int(gpu.bus_id.partition(".")[0].replace(":", ""), 16)


def _place(gpu: Gpu) -> tuple[int, int]:
    return bus(gpu), gpu.index


def _places(cards: Sequence[Gpu]) -> list[tuple[int, int]]:
    return sorted(map(_place, cards))


def _span(cards: Sequence[Gpu]) -> int:
    places = _places(cards)
    return places[-1][0] - places[0][0]
