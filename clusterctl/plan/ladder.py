"""Changes that a job may make to itself when it runs out of memory, the cheapest first. Pure.

Unlike ``plan.change`` these need neither another card nor another job script, and leave alone what is learnt: the rows
of every step, the optimiser and its formats. Each rung is a whole configuration, with the changes of those before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from trainers.config import RunConfig, parse

SHORTEST = 128
"""Tokens below which a row is not worth a run."""


@dataclass(frozen=True)
class Rung:
    """``resumes``: a checkpoint of before can go on with it, and its steps keep their rows."""

    words: str
    config: RunConfig
    resumes: bool


def ladder(config: RunConfig, *, shorter: bool, host_has_room: Callable[[RunConfig], bool]) -> list[Rung]:
    """The rungs of a run. None for engine verl, which splits its batches by itself.

    Args:
        config: what is submitted.
        shorter: whether rows may be cut, which changes what is learnt.
        host_has_room: whether the job's host memory holds such a run.
    """
    if str(config.engine) == "verl":
        return []
    rungs: list[Rung] = []
    values, resumes = config.model_dump(mode="json"), True
    for words, changes, goes_on in _changes(config, shorter=shorter):
        changed = _with(values, changes)
        try:
            made = parse(changed)
        except ValidationError:  # such as one row at once, which kto cannot compare
            continue
        if made.parallel.offload != "none" and not host_has_room(made):
            continue
        values, resumes = changed, resumes and goes_on
        rungs.append(Rung(words, made, resumes))
    return rungs


def _changes(config: RunConfig, *, shorter: bool) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Words, changes by key, and whether a checkpoint can go on with them."""
    yield from _batches(config)
    if not config.model.gradient_checkpointing:
        yield "gradient checkpointing", {"model.gradient_checkpointing": True}, True
    parallel = config.parallel
    # bitsandbytes' optimisers do not run on the host; how states are stored differs, so no checkpoint goes on.
    if parallel.device == "cuda" and parallel.offload == "none" and config.optim.optim.startswith("adamw_torch"):
        where = {"zero1": "optimizer", "zero2": "optimizer", "zero3": "all", "fsdp": "all"}.get(parallel.strategy)
        if where:
            what = "optimiser states" if where == "optimizer" else "weights and optimiser states"
            yield f"{what} in host memory", {"parallel.offload": where}, False
    length = config.data.max_length // 2
    if shorter and length >= SHORTEST:
        yield f"rows of at most {length} tokens", {"data.max_length": length}, False


def _batches(config: RunConfig) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """A half, a quarter, one row at once: the order of the rows does not depend on it (trainers.runtime.order)."""
    optim = config.optim
    batch = optim.per_device_train_batch_size
    total = batch * optim.gradient_accumulation_steps
    # Answers are kept in a checkpoint in parts of the old size.
    goes_on = getattr(config.method, "num_iterations", 1) == 1
    # Where answers are rated in groups, the number of held-out ones has to hold whole groups.
    evaluated = {} if hasattr(config.method, "num_generations") else {"optim.per_device_eval_batch_size": None}
    for rows in sorted({batch // 2, batch // 4, 2, 1}, reverse=True):
        if 0 < rows < batch and batch % rows == 0:
            changes: dict[str, Any] = {
                "optim.per_device_train_batch_size": rows,
                "optim.gradient_accumulation_steps": total // rows,
            } | dict.fromkeys(evaluated, min(rows, optim.per_device_eval_batch_size))
            yield f"{rows} row{'s' if rows > 1 else ''} at once", changes, goes_on


def _with(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    changed = {key: dict(value) if isinstance(value, dict) else value for key, value in values.items()}
    for key, value in changes.items():
        section, _, name = key.partition(".")
        changed[section][name] = value
    return changed
