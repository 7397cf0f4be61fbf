"""Which partition serves which type of GPU: a guess with its reason. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from clusterctl.durations import words
from clusterctl.hardware import Node
from clusterctl.surroundings import Partition

_LONG = 86400
"""Seconds. A partition that allows less is one for trying things out."""


@dataclass(frozen=True)
class Taken:
    """A partition for a key of the site file's ``partitions``. ``certain`` where there is no other."""

    key: str
    partition: str
    certain: bool
    why: str


def choose(nodes: Sequence[Node], partitions: Sequence[Partition]) -> tuple[Taken, ...]:
    """For each GPU type, for GPUs of any type (``gpu``) and for none (``cpu``) the partition to take.

    Before others go those of the usual priority, then those that allow a day, those with most of such GPUs, those
    with least else, those with the longest limit, the default one.
    """
    open_ones = [partition for partition in partitions if partition.open]
    types = sorted({gres.gpu_type for node in nodes for gres in node.gpus if gres.gpu_type})
    has_gpus = any(node.gpus for node in nodes)
    keys = [*types, *(["gpu"] if has_gpus else []), "cpu"]
    return tuple(taken for key in keys if (taken := _best(key, nodes, open_ones)))


def _best(key: str, nodes: Sequence[Node], partitions: Sequence[Partition]) -> Taken | None:
    usual = _usual_tier(partitions)

    def score(partition: Partition) -> tuple[float, ...]:
        here = [node for node in nodes if partition.name in node.partitions]
        fitting = sum(1 for node in here if _size(node, key))
        limit = float("inf") if partition.max_time is None else partition.max_time
        size = sum(_size(node, key) for node in here)
        return (partition.tier == usual, limit >= _LONG, size, fitting / len(here), limit, partition.default)

    candidates = [one for one in partitions if any(_size(n, key) for n in nodes if one.name in n.partitions)]
    if not candidates:
        return None
    best, *others = sorted(candidates, key=score, reverse=True)
    here = [node for node in nodes if best.name in node.partitions and _size(node, key)]
    limit = "no time limit" if best.max_time is None else f"at most {words(best.max_time)}"
    why = f"{_nodes(here, key)}, {limit}"
    if others:
        why += f"; also in {', '.join(sorted(one.name for one in others))}"
    return Taken(key, best.name, not others, why)


def _usual_tier(partitions: Sequence[Partition]) -> int:
    tiers = Counter(partition.tier for partition in partitions)
    default = next((partition.tier for partition in partitions if partition.default), None)
    return default if default is not None else max(tiers, key=lambda tier: tiers[tier], default=1)


def _size(node: Node, key: str) -> int:
    """How much of what the key stands for a node has: GPUs, or the node itself where none are wanted."""
    if key == "cpu":
        return 0 if node.gpus else 1
    return sum(gres.count for gres in node.gpus if key in ("gpu", gres.gpu_type))


def _nodes(nodes: Sequence[Node], key: str) -> str:
    """``2 nodes with 4``: GPUs where there are any."""
    sizes = Counter(_size(node, key) for node in nodes)
    gpus = "" if key == "cpu" else " with {} GPU{}"
    return " and ".join(
        f"{count} node{'s' if count > 1 else ''}" + gpus.format(size, "s" if size > 1 else "")
        for size, count in sorted(sizes.items(), reverse=True)
    )
