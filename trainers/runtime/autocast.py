"""How fp32 weights become half precision under autocast: how often, and how long the copies live."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from accelerate.utils import AutocastKwargs, convert_outputs_to_fp32

TRAINING = AutocastKwargs(cache_enabled=False)
"""For forward passes that a backward pass follows. PyTorch's own setting remembers the copy of every weight until the
forward pass ends, in case that it is used again. Ours use each once, and with checkpointing nothing else needs the
copies: 2 bytes a weight at the peak, 12 GiB of a 7B."""


@contextmanager
def weights_cast_once(trainer: Any) -> Iterator[None]:
    """Autocast around many forward passes without a backward pass: the copies live until the end.

    A generation would else make them for every token. They take the room of the gradients, so that nothing is
    remembered where these stay: as DDP's buckets do.
    """
    model = trainer.model
    prepared, original = (model.__dict__.get(name) for name in ("forward", "_original_forward"))
    if original is None or any(weight.grad is not None for weight in model.parameters()):
        with trainer.accelerator.autocast():
            yield
        return
    # The forward that accelerate prepared enters an autocast of its own, with the setting for training.
    model.forward = convert_outputs_to_fp32(original)
    try:
        with trainer.accelerator.autocast(AutocastKwargs(cache_enabled=True)):
            yield
    finally:
        model.forward = prepared
