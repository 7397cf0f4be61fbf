"""Whether a model keeps packed documents apart: tried, not believed."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from trainers.config import RunConfig
from trainers.errors import InputProblem

_LENGTHS = (5, 7)


def check_packing(model: Any, config: RunConfig) -> None:
    """Raise InputProblem when what the model says of a document depends on the one before it in a block.

    transformers' own models make their mask from positions that begin anew. Code that comes with a model, and
    layers with a memory of their own, may not. The same two documents, the first one changed, must give the very
    same logits of the second: masked tokens weigh nothing at all. Not tried where the weights are not whole or
    not plain numbers here, and with flash attention, which needs a GPU and gets the lengths themselves.
    """
    elsewhere = config.parallel.strategy in ("zero3", "fsdp") or config.model.quantization != "none"
    if elsewhere or config.model.attn_implementation == "flash_attention_2":
        return
    second = torch.arange(_LENGTHS[1]) + 1
    positions = torch.cat([torch.arange(length) for length in _LENGTHS])[None]
    training = model.training
    model.eval()
    said = []
    for first in (1, 2):
        ids = torch.cat([torch.full((_LENGTHS[0],), first), second])[None]
        with torch.no_grad(), contextlib.suppress(TypeError):
            out = model(input_ids=ids.to(model.device), position_ids=positions.to(model.device), use_cache=False)
            said.append(out.logits[0, _LENGTHS[0] :])
    model.train(training)
    # Nothing at all is said by a model that knows no positions.
    if not said or not torch.equal(*said):
        raise InputProblem(
            f"{type(model).__name__} does not keep packed documents apart",
            hint="set method.packing to false for this model",
        )
