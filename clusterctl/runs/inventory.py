"""What GPUs there are to run on: this machine's by NVML, or a cluster's by one sinfo."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence

from clusterctl.errors import Unavailable
from clusterctl.hardware import Gpu, Machine, Node
from clusterctl.model import SchedulerName
from clusterctl.plan.inventory import Inventory, Offer
from clusterctl.schema import Site
from trainers import hardware


def inventory(scheduler: SchedulerName, site: Site) -> Inventory:
    """The GPUs that jobs of this site can be given. One that cannot be asked has no offers, and says why."""
    try:
        if scheduler == "slurm":
            from clusterctl.adapters.slurm import Slurm

            return of_nodes(Slurm().nodes(), site)
        from clusterctl.runs.starts import this_machine

        return of_machine(this_machine())
    except Unavailable as e:
        return Inventory(scheduler, (), problem=e.message)


# --- one machine ------------------------------------------------------------------------------


def of_machine(machine: Machine) -> Inventory:
    """An offer for each type of card. What NVML says of a card's size beats the table."""
    groups: dict[str, list[Gpu]] = {}
    for gpu in machine.gpus:
        if not gpu.mig and gpu.gpu_type:
            groups.setdefault(gpu.gpu_type, []).append(gpu)
    offers = tuple(_of_cards(gpu_type, cards) for gpu_type, cards in groups.items())
    return Inventory("local", offers, problem="" if offers else "this machine has no GPU that a job could be given")


def _of_cards(gpu_type: str, cards: Sequence[Gpu]) -> Offer:
    good = [gpu for gpu in cards if gpu.usable]
    problems = sorted({gpu.problem for gpu in cards if gpu.problem})
    return Offer(
        gpu_type=gpu_type,
        usable=_smallest(gpu.capacity for gpu in good or cards),
        nodes=1,
        gpus_per_node=len(good),
        total=len(cards),
        free=sum(not gpu.busy for gpu in good),
        measured=any(gpu.memory_total for gpu in good),
        out=len(cards) - len(good),
        why_out="; ".join(problems),
        host_memory=memory_here(),
    )


def memory_here() -> int:
    """Bytes of this machine's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


# --- a cluster --------------------------------------------------------------------------------


def of_nodes(nodes: Sequence[Node], site: Site) -> Inventory:
    """An offer for each type of GPU and partition that a job of this site would go to."""
    types = sorted({gpu_type for node in nodes for gpu_type, _, _ in _gpus(node)})
    offers = [_of_type(gpu_type, nodes, partition_of(gpu_type, nodes, site)) for gpu_type in types]
    found = tuple(offer for offer in offers if offer.total)
    misled = tuple(_misled(offer, nodes) for offer in offers if not offer.total)
    return Inventory("slurm", found, misled=misled)  # without any offer: Slurm answered, and no node has a GPU


def _misled(offer: Offer, nodes: Sequence[Node]) -> str:
    """There are such GPUs, but none where the site file sends their jobs."""
    having = [node for node in nodes if any(kind == offer.gpu_type for kind, _, _ in _gpus(node))]
    names = ", ".join(sorted({name for node in having for name in node.partitions}))
    return f"{offer.gpu_type} stand in {names}, and `partitions` of the site file sends them to {offer.partition}"


def partition_of(gpu_type: str, nodes: Sequence[Node], site: Site) -> str | None:
    """Where a job for this type goes: what the site file says, else the default partition, else the only one.

    None where there are several: which of debug, urgent and the like is meant, nobody but the site can say.
    """
    having = [node for node in nodes if any(kind == gpu_type for kind, _, _ in _gpus(node))]
    names = {name for node in having for name in node.partitions}
    default = {node.default_partition for node in nodes if node.default_partition}
    said = site.partitions.get(gpu_type) or site.partitions.get("gpu")
    if said:
        return said
    if default & names:
        return next(iter(default & names))
    return next(iter(names)) if len(names) == 1 else None


def _of_type(gpu_type: str, nodes: Sequence[Node], partition: str | None) -> Offer:
    having = [(node, total, used) for node in nodes for kind, total, used in _gpus(node) if kind == gpu_type]
    here = [one for one in having if partition is None or partition in one[0].partitions]
    good = [one for one in here if one[0].usable and partition not in one[0].closed]
    largest = max((total for _, total, _ in good), default=0)
    of_that_size = [node for node, total, _ in good if total == largest]
    return Offer(
        gpu_type=gpu_type,
        usable=_usable_of(gpu_type, [node for node, _, _ in here]),
        nodes=len(of_that_size),
        gpus_per_node=largest,
        total=sum(total for _, total, _ in here),
        free=sum(total - used for _, total, used in good),
        partition=partition,
        out=sum(total for node, total, _ in here if (node, total) not in [(n, t) for n, t, _ in good]),
        why_out=_why_out((node for node, _, _ in here), partition),
        cpus_per_node=_smallest(node.cpus for node in of_that_size),
        host_memory=_smallest(node.memory for node in of_that_size),
        max_time=_max_time(here[0][0], partition) if here else None,
    )


def _gpus(node: Node) -> list[tuple[str, int, int]]:
    """A node's GPUs as (type, total, used). Where GRES names no type, a feature of the node may."""
    named = next((word for word in node.features if hardware.find(word)), "gpu")
    total: Counter[str] = Counter()
    used: Counter[str] = Counter()
    for counter, entries in ((total, node.gpus), (used, node.gpus_used)):
        for gres in entries:
            counter[(gres.gpu_type or named).lower()] += gres.count
    return [(gpu_type, total[gpu_type], used[gpu_type]) for gpu_type in total]


def _usable_of(gpu_type: str, nodes: Iterable[Node]) -> int | None:
    """A feature may tell the size that the type leaves open: a100 with 40 or with 80 GB. The smaller one counts."""
    features = [known.usable for node in nodes for word in node.features if (known := hardware.find(word))]
    named = hardware.find(gpu_type)
    return min(features, default=named.usable if named else None)


def _smallest(numbers: Iterable[int | None]) -> int | None:
    return min((number for number in numbers if number is not None), default=None)


def _max_time(node: Node, partition: str | None) -> int | None:
    limits = dict(zip(node.partitions, node.max_times, strict=True))
    return limits.get(partition) if partition else None


def _why_out(nodes: Iterable[Node], partition: str | None) -> str:
    words = []
    for node in nodes:
        if not node.usable:
            words.append(f"{node.name} is {node.state}" + (f" ({node.reason})" if node.reason else ""))
        elif partition in node.closed:
            words.append(f"partition {partition} is closed")
    return "; ".join(dict.fromkeys(words))
