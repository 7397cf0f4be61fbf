"""Frozen weights in 4 or 8 bits, by bitsandbytes: what an adapter is trained on (QLoRA, arXiv:2305.14314)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from trainers.config import Model


def quantization_config(model: Model, dtype: torch.dtype) -> Any:
    """A BitsAndBytesConfig, or None where nothing is quantised. Products are computed in ``dtype``."""
    if model.quantization == "none":
        return None
    from transformers import BitsAndBytesConfig

    if model.quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=model.double_quant,
        bnb_4bit_compute_dtype=dtype,
    )


def cure_cpu(model: Any) -> None:
    """Keep 4-bit weights in the form that training needs. On a CPU the first evaluation would repack them, and
    every gradient after it be wrong."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


@contextmanager
def full_precision_adapter(model: Any) -> Iterator[None]:
    """Keep TRL's trainers, while they are made, from rounding an adapter on quantised weights to bf16: small updates
    would be lost, and one that goes on training would not start from what the last run ended with."""
    hidden = [name for name in ("is_loaded_in_4bit", "is_loaded_in_8bit") if getattr(model, name, False)]
    for name in hidden:
        # On the wrapper alone: PEFT looks at the model within.
        setattr(model, name, False)
    yield
    for name in hidden:
        delattr(model, name)
