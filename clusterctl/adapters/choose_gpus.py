"""Which GPUs of this machine a job gets: pure arithmetic on cards, without a look at the machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from clusterctl.errors import NoFit
from clusterctl.model import Gpu, Resources

_HINT = "`clusterctl gpus` shows what there is: ask for fewer, or for another type"


def count(wanted: Resources) -> int:
    """How many GPUs the job wants."""
    return len(wanted.gpu_ids) or wanted.gpus_per_node


def visible(gpus: Sequence[Gpu], cuda_visible_devices: str | None) -> tuple[Gpu, ...]:
    """The cards that CUDA_VISIBLE_DEVICES leaves over, None being no such variable.

    Integers count in the order of the PCI bus. As in CUDA, the first entry that names no card ends the list.
    """
    if cuda_visible_devices is None:
        return tuple(gpus)
    in_order = sorted((g for g in gpus if not _is_mig(g)), key=lambda g: (_bus(g), g.index))
    found: list[Gpu] = []
    for word in cuda_visible_devices.split(","):
        name = word.strip()
        if name.isdecimal():
            matches = in_order[int(name) : int(name) + 1]
        else:
            matches = [g for g in gpus if name.startswith(("GPU-", "MIG-")) and (g.uuid or "").startswith(name)]
        if len(matches) != 1:
            break
        found += matches
    return tuple(found)


def candidates(gpus: Sequence[Gpu], wanted: Resources) -> list[tuple[Gpu, ...]]:
    """The groups of cards, any of which could hold the job if it were idle: best group first.

    A group is of one model, so that no job ever gets mixed cards unless it named them one by one. The model with
    the least memory comes first: the big ones are kept for those who need them.

    Raises:
        NoFit: this machine can never hold the job; with the numbers.
    """
    if wanted.gpu_ids:
        return [_named(gpus, wanted)]
    groups: dict[str | None, list[Gpu]] = {}
    for gpu in gpus:
        if gpu.usable and not _is_mig(gpu) and wanted.gpu_type in (None, gpu.gpu_type):
            groups.setdefault(gpu.name, []).append(gpu)
    fitting = [tuple(group) for group in groups.values() if len(group) >= wanted.gpus_per_node]
    if not fitting:
        kind = f"{wanted.gpu_type} GPUs" if wanted.gpu_type else "GPUs of one type"
        raise NoFit(f"{wanted.gpus_per_node} {kind} wanted, and this machine has {_inventory(gpus)}", hint=_HINT)
    return sorted(fitting, key=lambda group: (max(g.memory_total or 0 for g in group), group[0].name or ""))


def choose(
    gpus: Sequence[Gpu], busy: Collection[str], wanted: Resources, numa: Mapping[str, int] | None = None
) -> tuple[Gpu, ...] | str:
    """Idle cards for the job, near each other, or the words why there are none now.

    ``busy`` holds the UUIDs of cards that are leased or promised, ``numa`` the memory node of each UUID. A card
    on which somebody computes without a lease is not idle either, and the words say whose process it is.

    Raises:
        NoFit: as ``candidates``.
    """
    groups = candidates(gpus, wanted)
    number = count(wanted)
    for group in groups:
        free = [g for g in group if g.uuid not in busy and not g.busy]
        if len(free) >= number:
            return tuple(free) if wanted.gpu_ids else _nearest(free, number, numa or {})
    cards = [g for group in groups for g in group]
    squatted = [g for g in cards if g.uuid not in busy and g.busy]
    free_now = len(cards) - sum(g.uuid in busy or g.busy for g in cards)
    return "; ".join([f"{free_now} free of {len(cards)}", *(_whose(g) for g in squatted[:3])])


def _named(gpus: Sequence[Gpu], wanted: Resources) -> tuple[Gpu, ...]:
    """The cards that were chosen by hand, in the order of the hand."""
    chosen: list[Gpu] = []
    for name in wanted.gpu_ids:
        if name.isdecimal():
            matches = [g for g in gpus if g.index == int(name) and not _is_mig(g)]
        else:
            matches = [g for g in gpus if name and (g.uuid or "").startswith(name)]
        if len(matches) != 1:
            raise NoFit(f"GPU {name!r} is not one of this machine's, which has {_inventory(gpus)}", hint=_HINT)
        [gpu] = matches
        if not gpu.usable:
            why = gpu.problem or ("it is split by MIG: name its instances" if gpu.mig else "it has no UUID")
            raise NoFit(f"GPU {name} cannot be used: {why}", hint="name another one, or leave the choice open")
        if wanted.gpu_type not in (None, gpu.gpu_type):
            raise NoFit(f"GPU {name} is of type {gpu.gpu_type}, not {wanted.gpu_type}", hint=_HINT)
        if gpu in chosen:
            raise NoFit(f"GPU {name} is named twice", hint="name each GPU once")
        chosen.append(gpu)
    if wanted.gpus_per_node not in (0, len(chosen)):
        raise NoFit(
            f"{wanted.gpus_per_node} GPUs wanted, and {len(chosen)} are named: {', '.join(wanted.gpu_ids)}",
            hint="name as many as the profile asks for",
        )
    return tuple(chosen)


def _nearest(free: Sequence[Gpu], number: int, numa: Mapping[str, int]) -> tuple[Gpu, ...]:
    """The closest cards: on as few memory nodes as can be, then on the fullest one, then close on the bus."""

    def node(gpu: Gpu) -> int:
        return numa.get(gpu.uuid or "", -1)

    left = Counter(node(g) for g in free)
    row = sorted(free, key=lambda g: (node(g), _bus(g), g.index))
    windows = [row[start : start + number] for start in range(len(row) - number + 1)]
    best = min(windows, key=lambda w: (len({node(g) for g in w}), left[node(w[0])], _bus(w[-1]) - _bus(w[0])))
    return tuple(best)


def _bus(gpu: Gpu) -> int:
    """The PCI address as a number that grows along the bus: domain, bus, device."""
    if gpu.bus_id is None:
        return gpu.index
    return int(gpu.bus_id.partition(".")[0].replace(":", ""), 16)


def _is_mig(gpu: Gpu) -> bool:
    # A slice of a card is given only to those who name it: it is not what "one a800" means.
    return (gpu.uuid or "").startswith("MIG-")


def _inventory(gpus: Sequence[Gpu]) -> str:
    """'4 x a800, 3 x a40 (GPU 7 cannot be used: lost)'."""
    cards = [g for g in gpus if not _is_mig(g)]
    kinds = Counter(g.gpu_type or "unknown" for g in cards if g.usable)
    broken = [f"GPU {g.index} cannot be used: {g.problem or 'it is split by MIG'}" for g in cards if not g.usable]
    return (", ".join(f"{n} x {kind}" for kind, n in kinds.items()) or "none") + (
        f" ({'; '.join(broken)})" if broken else ""
    )


def _whose(gpu: Gpu) -> str:
    if not gpu.processes:
        return f"GPU {gpu.index} has its memory taken by a process that cannot be seen from here"
    first, *others = gpu.processes
    more = f" and {len(others)} more" if others else ""
    return f"GPU {gpu.index} is used without a lease by pid {first.pid} ({first.user or 'unknown user'}){more}"
