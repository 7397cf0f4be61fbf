"""What could make a run fit, the cheapest first: a ladder whose rungs are tried one after the other. Pure.

Every rung but the last keeps what is learnt: the effective batch stays the same, rows are shortened only when nothing
else is left. What a rung costs in time rises with it: smaller batches a little, checkpointing about a fifth, offload
most.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from clusterctl.plan.ladder import SHORTEST
from trainers.config import RunConfig

_COUNTS = (2, 4, 8)
"""GPUs of one node that weights are shared out over."""

_BATCH, _ACCUMULATION = "optim.per_device_train_batch_size", "optim.gradient_accumulation_steps"


@dataclass(frozen=True)
class Change:
    """A rung: ``sets`` are overrides by key, ``profile`` another profile, ``drops`` keys that do not go with it."""

    words: str
    sets: Mapping[str, Any] = field(default_factory=dict)
    profile: str | None = None
    drops: tuple[str, ...] = ()


def rungs(config: RunConfig, gpu_type: str, gpus: int, most: int, *, batch_open: bool) -> Iterator[Change]:
    """The ladder for a run on ``gpus`` cards of one node, of which ``most`` can be had.

    ``batch_open``: nobody said how a step is split, so the largest batch that fits is taken anyway.
    """
    model, optim = config.model, config.optim
    batch, effective = optim.per_device_train_batch_size, _effective(config)
    while batch % 2 == 0 and not batch_open:
        batch //= 2
        yield Change(f"{batch} rows at once", _rows(batch, effective, config.parallel.world_size))
    if not model.gradient_checkpointing:
        yield Change("gradient checkpointing", {"model.gradient_checkpointing": "true"})
    if model.adapter == "none" and optim.optim.startswith("adamw_torch") and config.parallel.offload == "none":
        yield Change("8-bit optimiser states", {"optim.optim": "adamw_8bit"})
    if model.adapter == "lora" and model.quantization == "none" and config.parallel.strategy not in ("zero3", "fsdp"):
        yield Change("frozen weights in 4 bits", {"model.quantization": "4bit"})
    if config.parallel.num_nodes == 1 and gpus:
        yield from _shared(config, gpu_type, gpus, most, 0 if batch_open else effective)
    length = config.data.max_length
    while length // 2 >= SHORTEST:
        length //= 2
        yield Change(f"rows of at most {length} tokens, the rest cut off", {"data.max_length": length})


def _shared(config: RunConfig, gpu_type: str, gpus: int, most: int, effective: int) -> Iterator[Change]:
    """Weights, gradients and states in parts: on more cards, then in host memory. Not with quantised weights.

    ``effective`` is what the batch has to come to; 0: whatever the recipe says is split anew.
    """
    parallel = config.parallel
    counts = [n for n in sorted({gpus, *_COUNTS}) if gpus <= n <= most and effective % n == 0]
    if config.model.quantization != "none":
        return
    for offload in ("", "-offload"):
        for count in counts:
            if count == 1 and not offload:
                continue  # nobody to share with
            name = f"{gpu_type}-{count}-zero3{offload}"
            if (parallel.strategy, count, parallel.offload) == ("zero3", gpus, "all" if offload else "none"):
                continue
            words = f"{count} GPUs that share the weights (zero3)" if count > 1 else "zero3"
            words += ", the rest in host memory" if offload else ""
            # bitsandbytes' optimisers do not run on the host.
            drops = ("model.quantization", *(["optim.optim"] if offload else []))
            yield Change(words, _rows(1, effective, count) if effective else {}, name, drops)


def _effective(config: RunConfig) -> int:
    optim = config.optim
    return optim.per_device_train_batch_size * optim.gradient_accumulation_steps * config.parallel.world_size


def _rows(batch: int, effective: int, processes: int) -> dict[str, Any]:
    return {_BATCH: batch, _ACCUMULATION: max(1, effective // (batch * processes))}


def together(changes: Sequence[Change]) -> Change:
    """Several rungs as one; where two say the same thing the later one counts."""
    sets: dict[str, Any] = {}
    words: dict[str, str] = {}
    profile = None
    for change in changes:
        for key in change.drops:
            sets.pop(key, None)
            words.pop(key, None)
        sets |= change.sets
        profile = change.profile or profile
        words["profile" if change.profile else next(iter(change.sets))] = change.words
    return Change(", ".join(words.values()), sets, profile)
