"""What follows from the card and the node: number format, batch, checkpointing, CPUs and memory. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from clusterctl.errors import NoFit
from clusterctl.models.shape import Shape
from clusterctl.plan.estimates import TIGHT, Memory
from clusterctl.plan.inventory import Inventory, Offer
from clusterctl.plan.memory import estimate, what_learns
from clusterctl.profiles import same_type, what_there_is
from clusterctl.schema import Profile
from trainers import hardware
from trainers.config import RunConfig
from trainers.hardware import GpuType

GIB = 2**30

BUSY = 4e12
"""Tokens times parameters that a card should get at once before checkpointing is taken to give it more: 4096 tokens
for a model of a billion. A choice, not measured; ``plan.work`` has smaller ones done before they were issued."""

BUSY_SHARED = 4096
"""The same in tokens, of a model of any size, where weights are gathered anew for each batch: then computing takes as
long as 24 GB/s of PCIe for weights and gradients. A choice, not measured."""

MOST = 64
"""Rows that a process takes at once at most: beyond, a card is busy anyway."""

HEAD_ROOM = 1.25
"""Host memory that is asked for over the estimate: page cache, pinned buffers, worker processes. A choice."""

HOST_LEAST = 16 * GIB
"""Host memory for each GPU at least: CUDA's libraries, the data, a checkpoint on its way to the disk. A choice."""

HOST_UNKNOWN = 64 * GIB
"""Host memory for each GPU where nothing is known of model and node."""


@dataclass(frozen=True)
class Card:
    """The GPU that a profile gets, as far as it is known. ``usable`` are the bytes that can be filled."""

    offer: Offer | None = None
    gpu_type: GpuType | None = None
    usable: int | None = None


UNKNOWN = Card()


@dataclass(frozen=True)
class Sized:
    """A configuration made to measure. ``memory`` is None where the model is not known; ``keys`` were reckoned."""

    config: RunConfig
    card: Card
    memory: Memory | None
    keys: tuple[str, ...]


def cards(profile: Profile, inventory: Inventory | None) -> list[Card]:
    """The cards that the profile can get, those with the least memory first; one that is unknown where none is known.

    Raises:
        NoFit: it asks for more than there is anywhere, with the numbers.
    """
    if not profile.gpus_per_node:
        return [UNKNOWN]
    offers = _offers(profile, inventory) if inventory else []
    word = profile.gpu_type
    if not offers:
        known = hardware.find(word) if word else None
        return [Card(None, known, known.usable if known else None)]
    found = [Card(offer, hardware.find(offer.gpu_type), _usable(offer)) for offer in offers]
    return sorted(found, key=lambda card: card.usable or 0)


def _offers(profile: Profile, inventory: Inventory) -> list[Offer]:
    offers = [o for o in inventory.offers if o.gpus_per_node or o.out]
    if not offers:
        return []
    asked = [o for o in offers if profile.gpu_type is None or same_type(o.gpu_type, profile.gpu_type)]
    if not asked:
        raise _no_fit(f"no {profile.gpu_type} is to be had here", inventory)
    if profile.partition:
        asked = [o for o in asked if o.partition in (profile.partition, None)] or asked
    least = profile.least_memory or 0
    if not (large := [o for o in asked if (_usable(o) or least) >= least]):
        raise _no_fit(f"no card here has {profile.gpu_memory} of memory", inventory)
    # Of what is out of work for now nobody knows here how large its nodes are.
    roomy = [o for o in large if o.out or (o.gpus_per_node >= profile.gpus_per_node and o.nodes >= profile.nodes)]
    if not roomy and not (inventory.scheduler == "local" and profile.nodes > 1):
        wanted = f"{profile.gpus_per_node} {profile.gpu_type or 'GPUs of one type'} on each of {profile.nodes} nodes"
        raise _no_fit(f"{wanted.replace('each of 1 nodes', 'one node')} are more than there are", inventory)
    return roomy or large


def _no_fit(what: str, inventory: Inventory) -> NoFit:
    return NoFit(f"{what}: {what_there_is(inventory)}", hint="ask for fewer, or for another type: `clusterctl gpus`")


def _usable(offer: Offer) -> int | None:
    if offer.usable is not None:
        return offer.usable
    known = hardware.find(offer.gpu_type)
    return known.usable if known else None


def with_card(profile: Profile, choices: Sequence[Card]) -> Profile:
    """The profile with what follows from cards and node, where it does not say it itself: number format and CPUs."""
    if not profile.gpus_per_node:
        return profile
    new = dict[str, Any]()
    known = [card.gpu_type.compute_capability for card in choices if card.gpu_type]
    if "dtype" not in profile.model_fields_set and any(one is not None and one < (8, 0) for one in known):
        new["dtype"] = "fp16"  # bf16 came with Ampere
    if profile.cpus_per_task is None:
        new["cpus_per_task"] = min((_cpus(profile, card.offer) for card in choices), default=profile.cpus)
    return profile.model_copy(update=new)


def _cpus(profile: Profile, offer: Offer | None) -> int:
    """The share of a node's CPUs that its share of the GPUs comes with."""
    if offer is None or not offer.cpus_per_node or not offer.gpus_per_node:
        return profile.cpus
    share = offer.cpus_per_node * profile.gpus_per_node // offer.gpus_per_node
    return max(1, min(share, offer.cpus_per_node))


def with_type(profile: Profile, card: Card, inventory: Inventory | None) -> Profile:
    """On Slurm, an open profile with the type of the card it needs, where there are smaller ones it could get.

    sbatch cannot ask for memory of a GPU. The local runner can, and takes whatever card is large enough.
    """
    if profile.gpu_type or card.offer is None or inventory is None or inventory.scheduler != "slurm":
        return profile
    sizes = [_usable(offer) or 0 for offer in inventory.offers if offer.gpus_per_node or offer.out]
    if min(sizes) >= (card.usable or 0):
        return profile
    return profile.model_copy(update={"gpu_type": card.offer.gpu_type, "gpu_memory": None})


def with_memory(profile: Profile, sized: Sized) -> Profile:
    """The profile with the host memory to ask for, where it does not say it itself and it runs on GPUs."""
    if not profile.gpus_per_node or profile.mem is not None:
        return profile
    offer, gpus = sized.card.offer, profile.gpus_per_node
    node = offer.host_memory if offer else None
    if sized.memory is not None:
        wanted = max(ceil(HEAD_ROOM * sized.memory.host_total), gpus * HOST_LEAST)
    elif offer and node and offer.gpus_per_node:
        wanted = node * gpus // offer.gpus_per_node
    else:
        wanted = gpus * HOST_UNKNOWN
    rounded = -(-wanted // (8 * GIB)) * 8
    return profile.model_copy(update={"mem": f"{max(1, min(rounded, node // GIB) if node else rounded)}G"})


def sized(
    config: RunConfig,
    choices: Sequence[Card],
    shape: Shape | None,
    reference: Shape | None,
    *,
    batch_open: bool,
    checkpointing_open: bool,
    eval_open: bool,
    longest_row: int | None = None,
) -> Sized:
    """The configuration with the largest batch that fits, and without checkpointing where a good one fits so.

    Of several cards the smallest that does is taken. Where model or card is not known: the smallest batch, with
    checkpointing, which is most likely to fit. ``longest_row``: tokens that no row has more of; nothing is padded
    beyond the longest row of its batch, so memory is reckoned for that where it is less than data.max_length.
    """
    enough = ceil(_busy(config, shape) / _cut(config, longest_row).data.max_length)
    learning = what_learns(config, shape) if shape else None

    def needs(candidate: RunConfig, card: Card) -> Memory | None:
        if shape is None:
            return None
        cut = _cut(candidate, longest_row)
        return estimate(cut, shape, card.gpu_type, reference=reference, learning=learning)

    for card in choices:

        def fits(candidate: RunConfig, card: Card = card) -> bool:
            memory = needs(candidate, card)
            return memory is not None and card.usable is not None and memory.total <= TIGHT * card.usable

        found = _best(
            config, fits, enough, batch_open=batch_open, checkpointing_open=checkpointing_open, eval_open=eval_open
        )
        memory = needs(found, card)
        if memory is None or card.usable is None or memory.total <= TIGHT * card.usable:
            break
    optim, before = found.optim, config.optim
    keys = ["optim.per_device_train_batch_size", "optim.gradient_accumulation_steps"] if batch_open else []
    keys += ["model.gradient_checkpointing"] if checkpointing_open else []
    if optim.per_device_eval_batch_size != before.per_device_eval_batch_size:
        keys.append("optim.per_device_eval_batch_size")
    return Sized(found, card, memory, tuple(keys))


def _busy(config: RunConfig, shape: Shape | None) -> float:
    """Tokens that keep a card busy."""
    if config.parallel.strategy in ("zero3", "fsdp") or shape is None:
        return BUSY_SHARED
    return BUSY / shape.total


def _cut(config: RunConfig, longest_row: int | None) -> RunConfig:
    """The configuration with the length that its rows reach."""
    if longest_row is None or longest_row >= config.data.max_length:
        return config
    return config.model_copy(update={"data": config.data.model_copy(update={"max_length": longest_row})})


def _best(
    config: RunConfig,
    fits: Callable[[RunConfig], bool],
    enough: int,
    *,
    batch_open: bool,
    checkpointing_open: bool,
    eval_open: bool,
) -> RunConfig:
    optim = config.optim
    rows = optim.per_device_train_batch_size * optim.gradient_accumulation_steps
    sizes = _sizes(config, rows) if batch_open else [optim.per_device_train_batch_size]
    switches = (False, True) if checkpointing_open else (config.model.gradient_checkpointing,)
    for checkpointing in switches:
        for size in sizes:
            candidate = _with(config, size, rows // size, checkpointing, eval_open=eval_open and batch_open)
            if not fits(candidate):
                continue
            if checkpointing is switches[-1] or size >= min(sizes[0], enough):
                return candidate
            break
    return _with(config, sizes[-1], rows // sizes[-1], switches[-1], eval_open=eval_open and batch_open)


def _sizes(config: RunConfig, rows: int) -> list[int]:
    """Batches of one process, the largest first, that make up its rows of a step."""
    least = 2 if config.stage == "kto" and config.method.loss_type == "kto" else 1
    return list(_divisors(rows, least)) or [rows]


def _divisors(rows: int, least: int) -> Iterator[int]:
    return (size for size in range(min(rows, MOST), least - 1, -1) if rows % size == 0)


def _with(config: RunConfig, batch: int, accumulation: int, checkpointing: bool, *, eval_open: bool) -> RunConfig:
    optim = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
    if eval_open:
        # What is measured on held-out rows should never need more than training does.
        optim["per_device_eval_batch_size"] = min(batch, config.optim.per_device_eval_batch_size)
    return config.model_copy(
        update={
            "optim": config.optim.model_copy(update=optim),
            "model": config.model.model_copy(update={"gradient_checkpointing": checkpointing}),
        }
    )
