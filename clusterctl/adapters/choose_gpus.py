"""Which GPUs of this machine a job gets: pure arithmetic on cards, without a look at the machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from clusterctl.adapters.near_gpus import Nearness, bus
from clusterctl.errors import NoFit
from clusterctl.hardware import Gpu, Pair
from clusterctl.model import Resources
from trainers.hardware import is_a

_GIB = 1024**3
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
    in_order = sorted((g for g in gpus if not _is_mig(g)), key=lambda g: (bus(g), g.index))
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

    A group is of one model, so that no job ever gets mixed cards unless it named them one by one and insists. The
    model with the least memory comes first: the big ones are kept for those who need them.

    Raises:
        NoFit: this machine can never hold the job; with the numbers.
    """
    if wanted.gpu_ids:
        return [_named(gpus, wanted)]
    groups: dict[str | None, list[Gpu]] = {}
    for gpu in gpus:
        if gpu.usable and not _is_mig(gpu) and _is_of_type(gpu, wanted) and _holds(gpu, wanted):
            groups.setdefault(gpu.name, []).append(gpu)
    fitting = [tuple(group) for group in groups.values() if len(group) >= wanted.gpus_per_node]
    if not fitting:
        raise NoFit(f"{_asked(wanted)} wanted, and this machine has {_inventory(gpus, wanted)}", hint=_HINT)
    return sorted(fitting, key=lambda group: (max(g.memory_total or 0 for g in group), group[0].name or ""))


def choose(
    gpus: Sequence[Gpu], busy: Collection[str], wanted: Resources, pairs: Sequence[Pair] = ()
) -> tuple[Gpu, ...] | str:
    """Idle cards for the job, near each other, or the words why there are none now.

    ``busy`` holds the UUIDs of cards that are leased or promised, ``pairs`` how the cards are joined. A card
    on which somebody computes without a lease is not idle either, and the words say whose process it is.

    Raises:
        NoFit: as ``candidates``.
    """
    groups = candidates(gpus, wanted)
    number = count(wanted)
    for group in groups:
        free = [g for g in group if g.uuid not in busy and not g.busy]
        if len(free) >= number:
            return tuple(free) if wanted.gpu_ids else Nearness(pairs).nearest(free, number)
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
        if not _is_of_type(gpu, wanted):
            raise NoFit(f"GPU {name} is of type {gpu.gpu_type}, not {wanted.gpu_type}", hint=_HINT)
        if gpu in chosen:
            raise NoFit(f"GPU {name} is named twice", hint="name each GPU once")
        chosen.append(gpu)
        if not _holds(gpu, wanted):
            raise NoFit(
                f"GPU {name} ({gpu.gpu_type}) holds {_gib(gpu.capacity)}, and the job needs {_gib(wanted.gpu_memory)}",
                hint="name larger cards, or leave the choice open",
            )
    if wanted.gpus_per_node not in (0, len(chosen)):
        raise NoFit(
            f"{wanted.gpus_per_node} GPUs wanted, and {len(chosen)} are named: {', '.join(wanted.gpu_ids)}",
            hint="name as many as the profile asks for",
        )
    if not wanted.mixed:
        _refuse_mixed(chosen)
    return tuple(chosen)


def _refuse_mixed(chosen: Sequence[Gpu]) -> None:
    models: dict[str | None, list[Gpu]] = {}
    for gpu in chosen:
        models.setdefault(gpu.name, []).append(gpu)
    if len(models) > 1:
        raise NoFit(
            "the GPUs are of different models: " + ", ".join(_numbered(cards) for cards in models.values()),
            hint="all wait for the slowest card at every step, and the smallest memory bounds the batch: "
            "name cards of one model, or insist with --mixed",
        )


def _numbered(cards: Sequence[Gpu]) -> str:
    """'0, 1 A800 80GB PCIe (79.1 GiB)'."""
    name = (cards[0].name or "unknown").removeprefix("NVIDIA ")
    return f"{', '.join(str(gpu.index) for gpu in cards)} {name} ({_gib(cards[0].capacity)})"


def _is_of_type(gpu: Gpu, wanted: Resources) -> bool:
    return wanted.gpu_type is None or (gpu.name is not None and is_a(wanted.gpu_type, gpu.name, gpu.memory_total))


def _holds(gpu: Gpu, wanted: Resources) -> bool:
    """Whether a card is large enough. One that tells nothing of its memory may be."""
    return wanted.gpu_memory is None or gpu.capacity is None or gpu.capacity >= wanted.gpu_memory


def _asked(wanted: Resources) -> str:
    """'4 a800 GPUs of 61.2 GiB'."""
    kind = f"{wanted.gpu_type} GPUs" if wanted.gpu_type else "GPUs of one type"
    size = f" that hold {_gib(wanted.gpu_memory)}" if wanted.gpu_memory is not None else ""
    return f"{wanted.gpus_per_node} {kind}{size}"


def _gib(size: int | None) -> str:
    return "unknown memory" if size is None else f"{size / _GIB:.1f} GiB"


def _is_mig(gpu: Gpu) -> bool:
    # A slice of a card is given only to those who name it: it is not what "one a800" means.
    return (gpu.uuid or "").startswith("MIG-")


def _inventory(gpus: Sequence[Gpu], wanted: Resources | None = None) -> str:
    """'4 x a800, 3 x a40 (GPU 7 cannot be used: lost)'; with what each holds where the job asks for a size."""
    cards = [g for g in gpus if not _is_mig(g)]
    sized = wanted is not None and wanted.gpu_memory is not None
    kinds = Counter((g.gpu_type or "unknown") + (f" of {_gib(g.capacity)}" if sized else "") for g in cards if g.usable)
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
