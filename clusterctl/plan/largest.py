"""The largest batch that fits each type of GPU, plainly and with each of the usual savings. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clusterctl.models.shape import Shape
from clusterctl.plan.estimates import TIGHT
from clusterctl.plan.memory import estimate, what_learns
from clusterctl.plan.states import Learning
from trainers.config import RunConfig
from trainers.hardware import GpuType

COMMON = ("t4", "v100", "v100_32gb", "rtx3090", "rtx4090", "l40s", "a40", "a100", "a800", "h20", "h100", "h200")
"""Keys of trainers.hardware that the table has in any case."""

MOST = 1024
"""Rows beyond which nobody asks."""


@dataclass(frozen=True)
class Saving:
    """A column: what is changed, section by section, in the whole configuration."""

    name: str
    changes: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Row:
    """A type of GPU. ``rows`` are the largest batches of one process in the order of the savings; 0: not even one."""

    key: str
    gpu: GpuType
    here: bool
    rows: tuple[int, ...]


def savings(config: RunConfig) -> tuple[Saving, ...]:
    """The columns. All but the first have gradient checkpointing; what they add is not added to each other."""
    checkpointing = {"gradient_checkpointing": True}
    one = {"num_nodes": 1, "processes_per_node": 1, "launcher": "python", "strategy": "single", "offload": "none"}
    host = {**one, "launcher": "torchrun", "strategy": "zero3", "offload": "all", "device": "cuda"}
    one["device"] = "cuda"
    plain = {"quantization": "none"}
    lora = config.model.adapter == "lora"
    eight: dict[str, Mapping[str, Any]] = {"parallel": one, "model": {**plain, **checkpointing}}
    eight |= {"model": {**checkpointing, "quantization": "8bit"}} if lora else {"optim": {"optim": "adamw_8bit"}}
    return (
        Saving("AS IS", {"parallel": one, "model": {**plain, "gradient_checkpointing": False}}),
        Saving("CHECKPOINTING", {"parallel": one, "model": {**plain, **checkpointing}}),
        Saving("8-BIT" if lora else "8-BIT ADAM", eight),
        Saving(
            "4-BIT" if lora else "LORA, 4-BIT",
            {"parallel": one, "model": {**checkpointing, "adapter": "lora", "quantization": "4bit", "train_only": []}},
        ),
        Saving("OFFLOAD", {"parallel": host, "model": {**plain, **checkpointing}}),
    )


def table(config: RunConfig, shape: Shape, types: Sequence[tuple[str, GpuType, bool]]) -> list[Row]:
    """A row for each of ``types``: key, type, and whether it is to be had here."""
    columns = [_with(config, column) for column in savings(config)]
    learning = [what_learns(column, shape) for column in columns]

    def rows(gpu: GpuType) -> tuple[int, ...]:
        pairs = zip(columns, learning, strict=True)
        return tuple(largest(_for(column, gpu), shape, gpu, learns) for column, learns in pairs)

    return [Row(key, gpu, here, rows(gpu)) for key, gpu, here in types]


def largest(config: RunConfig, shape: Shape, gpu: GpuType, learning: Learning | None = None) -> int:
    """Rows that one process can take at once, so that it fits and is not tight; 0 where one is too many."""

    def fits(rows: int) -> bool:
        optim = {"per_device_train_batch_size": rows, "per_device_eval_batch_size": 1, "train_batch_size": None}
        tried = config.model_copy(update={"optim": config.optim.model_copy(update=optim)})
        return estimate(tried, shape, gpu, learning=learning).total <= TIGHT * gpu.usable

    return _last(fits)


def _last(fits: Callable[[int], bool]) -> int:
    """The last number that fits, by doubling and halving: more rows never need less."""
    if not fits(1):
        return 0
    good, bad = 1, 2
    while bad <= MOST and fits(bad):
        good, bad = bad, bad * 2
    if bad > MOST:
        return MOST
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good


def _with(config: RunConfig, column: Saving) -> RunConfig:
    """The configuration with what a column changes."""
    sections = {name: getattr(config, name).model_copy(update=dict(new)) for name, new in column.changes.items()}
    return config.model_copy(update=sections)


def _for(config: RunConfig, gpu: GpuType) -> RunConfig:
    """The configuration in the number format that this type of card has."""
    modern = gpu.compute_capability is not None and gpu.compute_capability >= (8, 0)
    dtype = {"dtype": "bf16" if modern else "fp16"}
    return config.model_copy(update={"precision": config.precision.model_copy(update=dtype)})
