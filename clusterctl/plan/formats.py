"""How our trainers hold the numbers of a run: format of weights, gradients, activations. Pure.

From trainers/model/device.py (``weight_dtype``), trainers/runtime/deepspeed.py and fsdp.py. Sizes in bytes a number.
"""

from __future__ import annotations

from dataclasses import dataclass

from clusterctl.plan.batch import PAIRS, ROLLOUTS
from trainers.config import RunConfig


@dataclass(frozen=True)
class Formats:
    """``stored``: base weights; ``adapter``: weights that an adapter adds; ``gradient``: of a weight that learns.

    ``stream`` is what runs through the layers, ``compute`` what products are computed in. With ``autocast`` every
    product works on a copy of an fp32 weight in ``compute``, which lives until its backward pass.
    """

    stored: int
    adapter: int
    gradient: int
    stream: int
    compute: int
    autocast: bool

    @property
    def copies(self) -> bool:
        """Whether autocast makes copies of the base weights."""
        return self.autocast and self.stored > self.compute


def formats(config: RunConfig) -> Formats:
    """The formats of a run, whose strategy and number format decide them."""
    lora, dtype, parallel = config.model.adapter == "lora", config.precision.dtype, config.parallel
    if dtype == "fp32":
        return Formats(4, 4, 4, 4, 4, autocast=False)
    if parallel.deepspeed:
        # The engine turns the whole model to half precision, adapters too; the fp32 copy is its optimizer's.
        return Formats(2, 2, 2, 2, 2, autocast=False)
    stored = 2 if lora and dtype == "bf16" else 4
    if parallel.strategy == "fsdp":
        # Shards are stored so, whole layers are gathered in half precision.
        return Formats(stored, 4, 4, 2, 2, autocast=False)
    return Formats(stored, 4, 4, stored, 2, autocast=True)


def sequences(config: RunConfig) -> int:
    """Token sequences that one process computes at once: a pair is two."""
    return config.optim.per_device_train_batch_size * (2 if config.stage in PAIRS else 1)


def longest(config: RunConfig) -> int:
    """Tokens of the longest sequence: of rollouts prompt and answer."""
    return config.data.max_length + (config.method.max_completion_length if config.stage in ROLLOUTS else 0)


def has_mask(config: RunConfig) -> bool:
    """Whether attention gets a mask: rows of several lengths, or several in one. Flash attention gets lengths."""
    packed = bool(getattr(config.method, "packing", False))
    return config.model.attn_implementation != "flash_attention_2" and (packed or sequences(config) > 1)


def second_model(config: RunConfig) -> bool:
    """Whether the reference is a model of its own: stages that measure against the start, all weights learning."""
    method, whole = config.method, config.model.adapter == "none"
    if config.stage == "dpo":
        return whole and not method.precompute_ref_log_probs
    if config.stage == "kto":
        return whole
    if config.stage in ROLLOUTS:
        weight = getattr(method, "beta", 0) or getattr(method, "kl_coef", 0)
        return bool(weight) and (whole or bool(config.model.adapter_name_or_path))
    return False
