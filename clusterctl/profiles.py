"""Profiles by name: a file, or a name that says everything: ``TYPE-[NODESx]GPUS[-STRATEGY[-offload]]``.

``a800-4-zero3`` needs no file: what it asks for stands in its name, and sizes are reckoned when it is used. A file of
the same name wins. Light: ``profiles list`` and completion use it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clusterctl import assets
from clusterctl.errors import NoFit, Unavailable, UsageProblem
from clusterctl.plan.inventory import Inventory, Offer
from trainers import hardware

if TYPE_CHECKING:
    from clusterctl.schema import Profile

ANY = "gpu"
"""The TYPE that stands for any."""

FORM = "TYPE-[NODESx]GPUS[-STRATEGY[-offload]]"
STRATEGIES = ("single", "ddp", "zero1", "zero2", "zero3", "fsdp")
_NAME = re.compile(r"([a-z][a-z0-9_.]*)-(?:([0-9]+)x)?([0-9]+)(?:-([a-z0-9]+)(-offload)?)?", re.ASCII)


@dataclass(frozen=True)
class Asked:
    """What of the hardware was asked for beside a profile. ``gpus`` counts those of all nodes together."""

    gpu_type: str | None = None
    gpus: int | None = None
    gpu_ids: tuple[str, ...] = ()
    mixed: bool = False
    """Cards of several types are wanted all the same."""

    @property
    def anything(self) -> bool:
        """Whether something was asked for."""
        return bool(self.gpu_type or self.gpus or self.gpu_ids or self.mixed)


NOTHING = Asked()


@dataclass(frozen=True)
class Source:
    """A profile before it is checked. ``path`` is None where the name alone says it; ``where`` locates a key."""

    name: str
    values: Mapping[str, Any]
    where: Callable[[str], str]
    path: Path | None = None


def find(name: str) -> Source:
    """A profile by the name of its file, by path, or by a name that says everything.

    Raises:
        NotFound, UsageProblem: there is none; the hint has the nearest.
    """
    try:
        asset = assets.find("profiles", name)
    except UsageProblem as e:
        if (values := derived(name)) is None:
            raise _unknown(name, e) from None
        return Source(name.lower(), values, lambda key: f"the name {name}")
    from clusterctl import yaml_text

    document = yaml_text.read(asset.path)
    lines = {key: f"{document.path}:{line}" for key, line in document.lines.items()}
    return Source(asset.name, document.values, lambda key: lines.get(key, str(document.path)), asset.path)


def derived(name: str) -> dict[str, Any] | None:
    """The values that a name says; None where it has not that form.

    Raises:
        UsageProblem: it has, with no GPUs, or a type or a strategy that there is not.
    """
    match = _NAME.fullmatch(name.lower())
    if match is None:
        return None
    word, nodes, gpus, strategy, offload = match.groups()
    _check(name, word, strategy)
    # More digits than any machine has GPUs: int() of thousands of them would take its time.
    count, machines = int(gpus[:9]), int((nodes or "1")[:9])
    if not count or not machines:
        raise UsageProblem(f"profile {name} has no GPUs", hint="the profile without GPUs is `cpu`")
    strategy = strategy or ("single" if count * machines == 1 else "ddp")
    if offload and strategy in ("single", "ddp"):
        raise UsageProblem(
            f"profile {name}: strategy {strategy} has no offload", hint=f"write {name.replace(strategy, 'zero3')}"
        )
    where = f"each of {machines} nodes" if machines > 1 else "one node"
    found: dict[str, Any] = {"description": f"{count} {_called(word)} on {where}, {strategy}"}
    if offload:
        found["description"] += " with offload to host memory"
    if word != ANY:
        found["gpu_type"] = word
    found |= {"gpus_per_node": count, "nodes": machines} if machines > 1 else {"gpus_per_node": count}
    if strategy != "single":
        found |= {"launcher": "torchrun", "strategy": strategy}
    if offload:
        found["offload"] = "all" if strategy in ("zero3", "fsdp") else "optimizer"
    return found


def candidates(inventory: Inventory, asked: Asked) -> list[str]:
    """The profiles among which to choose where none is named: for each type, from few cards to many.

    Sharing out comes behind plain copies, host memory behind that, a second node last. ``cpu`` stands alone, and only
    where there are no GPUs.

    Raises:
        Unavailable: Slurm does not say what there is.
        NoFit: what was asked for is not there, with the numbers.
    """
    offers = [offer for offer in inventory.offers if offer.gpus_per_node > 0]
    silent = inventory.scheduler == "slurm" and inventory.problem
    if not inventory.offers and not asked.anything and not silent:
        return ["cpu"]
    if not offers and inventory.problem:
        raise Unavailable(
            f"which GPUs there are is not known: {inventory.problem}",
            hint="name a profile: --profile a800-1, --profile cpu",
        )
    if asked.gpu_type:
        offers = [offer for offer in offers if same_type(offer.gpu_type, asked.gpu_type)]
    if not offers:
        kind = _called(asked.gpu_type) if asked.gpu_type else "GPU"
        out = "".join(f"; {o.out} {o.gpu_type} take no work: {o.why_out}" for o in inventory.offers if o.out)
        raise NoFit(
            f"no {kind} is to be had here: {what_there_is(inventory)}{out}",
            hint="`clusterctl gpus` shows them; to wait for one, name a profile, as a800-1",
        )
    names: dict[str, None] = {}
    for word in dict.fromkeys(_word(offer, asked, offers) for offer in offers):
        of_type = [offer for offer in offers if word in (ANY, offer.gpu_type)]
        largest = sum(o.gpus_per_node for o in of_type) if asked.mixed else max(o.gpus_per_node for o in of_type)
        nodes = max(offer.nodes for offer in of_type) if inventory.scheduler == "slurm" else 1
        names |= dict.fromkeys(_sizes(word, largest, nodes, asked.gpus))
    if not names:
        raise NoFit(f"{asked.gpus} GPUs together are not to be had: {what_there_is(inventory)}", hint="ask for fewer")
    return sorted(names, key=_order)


def with_asked(profile: Profile, name: str, asked: Asked) -> Profile:
    """The profile with the type that options give an open one.

    Raises:
        UsageProblem: the options ask for something else than the profile.
    """
    if not asked.anything:
        return profile
    total = profile.nodes * profile.gpus_per_node
    if not total:
        raise UsageProblem(
            f"profile {name} has no GPUs, and the options ask for some", hint="leave --profile out, or the options"
        )
    if asked.gpus not in (None, total):
        raise UsageProblem(
            f"profile {name} has {total} GPU{'s' * (total > 1)}, and --gpus or --gpu-ids ask for {asked.gpus}",
            hint="leave one of them out, or name another profile, as a800-2-zero3",
        )
    if profile.gpu_type and asked.mixed:
        raise UsageProblem(f"profile {name} wants {profile.gpu_type}, and --mixed several types", hint="drop one")
    if asked.gpu_type is None:
        return profile
    if profile.gpu_type and not same_type(profile.gpu_type, asked.gpu_type):
        raise UsageProblem(
            f"profile {name} is for {profile.gpu_type}, and {asked.gpu_type} is asked for",
            hint=f"drop --gpu-type, or name the profile for {asked.gpu_type}",
        )
    return profile if profile.gpu_type else profile.model_copy(update={"gpu_type": asked.gpu_type, "gpu_memory": None})


def same_type(one: str, other: str) -> bool:
    """Whether two words mean one type of GPU: NVML's, a cluster's and ours differ."""
    first, second = hardware.find(one), hardware.find(other)
    return one.lower() == other.lower() or (first is not None and second is not None and first.name == second.name)


def check_type(word: str) -> None:
    """Raises UsageProblem for a type of GPU that is not known, with the nearest that is."""
    if word != ANY and hardware.find(word) is None:
        near = hardware.nearest(word)
        raise UsageProblem(f"unknown type of GPU {word!r}", hint=f"did you mean {near}?" if near else _types_hint())


def what_there_is(inventory: Inventory) -> str:
    """'a800: 2 nodes with 4; a40: 1 node with 4'."""
    said = [f"{o.gpu_type}: {_nodes(o.nodes)} with {o.gpus_per_node}" for o in inventory.offers if o.gpus_per_node]
    return "; ".join([*dict.fromkeys(said), *inventory.misled]) or inventory.problem or "there is none"


def _word(offer: Offer, asked: Asked, offers: list[Offer]) -> str:
    """TYPE of the names for an offer: its own word, where that can stand in a name."""
    plain = hardware.find(offer.gpu_type) is not None and re.fullmatch(r"[a-z][a-z0-9_.]*", offer.gpu_type)
    return ANY if asked.mixed or not plain else offer.gpu_type


def _sizes(word: str, largest: int, nodes: int, wanted: int | None) -> list[str]:
    found = []
    counts = sorted({count for count in (1, 2, 4, 8, 16, largest) if count <= largest})
    for count in counts if wanted is None else [wanted] * (wanted <= largest):
        alone = f"{word}-{count}"
        found += [alone, f"{alone}-zero2-offload"] if count == 1 else [alone, f"{alone}-zero2", f"{alone}-zero3"]
        found += [f"{alone}-zero3-offload"]
    for machines in (2,) if wanted is None else range(2, nodes + 1):
        if machines <= nodes and wanted in (None, machines * largest):
            found.append(f"{word}-{machines}x{largest}-zero3")
    return found


def _order(name: str) -> tuple[bool, bool, int, int]:
    _, nodes, gpus, strategy, offload = _NAME.fullmatch(name).groups()  # type: ignore[union-attr]
    return bool(nodes), bool(offload), int(gpus), STRATEGIES.index(strategy) if strategy else -1


def _check(name: str, word: str, strategy: str | None) -> None:
    if word != ANY and hardware.find(word) is None:
        near = hardware.nearest(word)
        raise UsageProblem(
            f"unknown profile {name!r}: {word} is no known type of GPU",
            hint=f"did you mean {near}{name[len(word) :]}?" if near else _types_hint(),
        )
    if strategy is not None and strategy not in STRATEGIES:
        near_one = difflib.get_close_matches(strategy, STRATEGIES, n=1)
        raise UsageProblem(
            f"unknown profile {name!r}: {strategy} is no strategy",
            hint=f"did you mean {name.replace(strategy, near_one[0])}?" if near_one else f"{', '.join(STRATEGIES)}",
        )


def _unknown(name: str, error: UsageProblem) -> UsageProblem:
    if not error.message.startswith("unknown profile"):
        return error
    known = [asset.name for asset in assets.listing("profiles")]
    words = [*known, *(f"{word}-1" for word in (*hardware.types(), ANY))]
    near = difflib.get_close_matches(name.lower(), words, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(known)}, and {FORM}: a800-4-zero3"
    return UsageProblem(error.message, hint=hint)


def _types_hint() -> str:
    return f"known are {', '.join(hardware.types())} and {ANY}; for another write a profile with its gpu_type"


def _called(word: str) -> str:
    return "GPU of any type" if word == ANY else word.upper().replace("_", " ")


def _nodes(count: int) -> str:
    return "1 node" if count == 1 else f"{count} nodes"
