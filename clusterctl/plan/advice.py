"""What a run that was measured could do with instead: fewer or smaller cards, or a better use of its own. Pure.

Estimates are scaled by what the run itself measured, so that only their differences are relied on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clusterctl.models.shape import Shape
from clusterctl.plan import memory, work
from clusterctl.plan.batch import arithmetic
from clusterctl.plan.estimates import TIGHT
from trainers.hardware import GpuType

if TYPE_CHECKING:
    from trainers.config import RunConfig

GAIN = 0.1
"""A change that saves less of the time is not worth a word."""


@dataclass(frozen=True)
class Measured:
    """What is known of the run: its card, how many, its peak in bytes as PyTorch counts, tokens of a sequence."""

    card: GpuType
    cards: int
    peak: int
    row_length: float


@dataclass(frozen=True)
class Cards:
    """Cards that would hold the run: bytes that each needs, and how many times longer it takes."""

    card: GpuType
    count: int
    needs: int
    longer: float


@dataclass(frozen=True)
class Change:
    """Settings under which the same cards do the same steps faster: ``sets`` as ``--set`` takes them."""

    sets: tuple[str, ...]
    needs: int
    shorter: float
    """Share of the time that is saved."""


def cheaper(config: RunConfig, shape: Shape, run: Measured, others: Mapping[GpuType, int]) -> list[Cards]:
    """Fewer cards of its type, or smaller ones, that hold the run: the least memory in all first, two at most.

    ``others`` are types with the cards that one node has of them; of the run's own a node has at least what it used.
    """
    took = _seconds(config, shape, run.card, run.row_length)
    if took is None:
        return []
    found = []
    nodes = {run.card: config.parallel.processes_per_node}
    nodes |= {card: most for card, most in others.items() if card.name != run.card.name}
    for card, most in nodes.items():
        for count in _counts(min(run.cards, most)):
            if count * card.memory >= run.cards * run.card.memory:
                continue
            other = _on(config, count)
            if other is None or (config.precision.dtype == "bf16" and not card.bf16):
                continue
            needs, seconds = _needs(config, other, shape, run), _seconds(other, shape, card, run.row_length)
            if needs <= TIGHT * card.usable and seconds is not None:
                found.append(Cards(card, count, needs, seconds / took))
    return _distinct(sorted(found, key=lambda one: (one.count * one.card.memory, one.longer)))


def faster(config: RunConfig, shape: Shape, run: Measured) -> Change | None:
    """The change of batch or checkpointing that saves most time and still fits its cards."""
    took = _seconds(config, shape, run.card, run.row_length)
    if took is None:
        return None
    found = []
    for other, sets in _variants(config):
        needs, seconds = _needs(config, other, shape, run), _seconds(other, shape, run.card, run.row_length)
        if needs <= TIGHT * run.card.usable and seconds is not None and 1 - seconds / took > GAIN:
            found.append(Change(sets, needs, 1 - seconds / took))
    return max(found, key=lambda one: one.shorter, default=None)


def _distinct(found: Sequence[Cards]) -> list[Cards]:
    """The smallest, and the fastest of those that are cheaper, where it is clearly faster."""
    if not found:
        return []
    first, quick = found[0], min(found, key=lambda one: one.longer)
    return [first, quick] if quick.longer < (1 - GAIN) * first.longer else [first]


def _counts(most: int) -> list[int]:
    return sorted({count for count in (1, 2, 4, 8, 16, most) if 0 < count <= most})


def _on(config: RunConfig, count: int) -> RunConfig | None:
    """The run on so many cards of one node, with the same rows in a step; None where they do not divide."""
    parallel, optim = config.parallel, config.optim
    rows = optim.per_device_train_batch_size * optim.gradient_accumulation_steps * parallel.world_size
    # The longest batches that come out even, up to those that were used.
    each = max(n for n in range(1, optim.per_device_train_batch_size + 1) if rows % (n * count) == 0 or n == 1)
    if rows % (each * count):
        return None
    alone = {"strategy": "single", "launcher": "python"} if parallel.offload == "none" else {}
    shared = {"num_nodes": 1, "processes_per_node": count} | (alone if count == 1 else {})
    return _with(
        config,
        parallel=shared,
        optim={"per_device_train_batch_size": each, "gradient_accumulation_steps": rows // (each * count)},
    )


def _variants(config: RunConfig) -> Iterator[tuple[RunConfig, tuple[str, ...]]]:
    optim = config.optim
    if config.model.gradient_checkpointing:
        yield _with(config, model={"gradient_checkpointing": False}), ("model.gradient_checkpointing=false",)
    batch, accumulation = optim.per_device_train_batch_size, optim.gradient_accumulation_steps
    while accumulation % 2 == 0:
        batch, accumulation = 2 * batch, accumulation // 2
        said = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
        yield _with(config, optim=said), tuple(f"optim.{name}={value}" for name, value in said.items())


def _with(config: RunConfig, **sections: dict[str, Any]) -> RunConfig:
    """A copy with other values. They are ours, so they are not validated again."""
    return config.model_copy(
        update={name: getattr(config, name).model_copy(update=values) for name, values in sections.items()}
    )


def _needs(config: RunConfig, other: RunConfig, shape: Shape, run: Measured) -> int:
    """The estimate for another setting, moved by what the estimate of this one was off."""
    own = memory.estimate(config, shape, run.card)
    off = memory.measured(own, run.peak, "").total - own.total
    return memory.estimate(other, shape, run.card).total + max(off, 0)


def _seconds(config: RunConfig, shape: Shape, card: GpuType, row_length: float) -> float | None:
    batch = arithmetic(config, None)
    token = work.of_token(config, shape, row_length)
    step = work.step(config, shape, batch, card, token, row_length=row_length)
    return step.total if step else None
