"""Batch arithmetic of a plan: what one optimiser step sees, and how many steps there are. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from trainers.data.arithmetic import count_steps

if TYPE_CHECKING:
    from trainers.config import RunConfig

ROLLOUTS = ("grpo", "rloo", "ppo")
"""Stages whose batch is made of answers that the model generates."""

PAIRS = ("dpo", "reward")
"""Stages whose rows are two sequences that the model reads."""


@dataclass(frozen=True)
class Batch:
    """Of one optimiser step. ``unit`` is what it is made of. What is not known before the run is None."""

    per_device: int
    processes: int
    accumulation: int
    effective: int
    unit: str
    rows: int | None
    steps_per_epoch: int | None
    epochs: float | None
    steps: int | None
    group: int = 1
    """Answers to each prompt, where the unit is answers."""


def arithmetic(config: RunConfig, rows: int | None, unit: str = "rows") -> Batch:
    """The batch of a run over so many ``rows`` (or blocks, or prompts). How verl counts steps is left to verl."""
    optim, processes = config.optim, config.parallel.world_size
    said = optim.max_steps if optim.max_steps > 0 else None
    batch, accumulation, epochs = (
        optim.per_device_train_batch_size,
        optim.gradient_accumulation_steps,
        optim.num_train_epochs,
    )
    effective, group = batch * processes * accumulation, getattr(config.method, "num_generations", 1)
    per_epoch = steps = None
    if rows and config.stage in ROLLOUTS and str(config.engine) == "trl":
        # A prompt that fills no whole step is left out of its epoch (trl's RepeatSampler).
        per_epoch = rows // max(effective // group, 1) * config.method.num_iterations
        steps = ceil(epochs * per_epoch)
    elif rows and config.stage not in ROLLOUTS:
        counted = count_steps(rows, batch, processes, accumulation, epochs)
        per_epoch, steps = counted.per_epoch, counted.total
    return Batch(
        per_device=batch,
        processes=processes,
        accumulation=accumulation,
        effective=effective,
        unit="answers" if config.stage in ROLLOUTS else unit,
        rows=rows,
        steps_per_epoch=per_epoch,
        epochs=None if said else epochs,
        steps=said or steps,
        group=group,
    )
