"""LoRA on a mixture of experts, whose weights are parameters of three dimensions and no modules.

PEFT (0.21, utils/transformers_weight_conversion.py) reads names of the modules that these models had before
transformers 5 as names of the parameters; all-linear stands for all of them. Qwen2-MoE is not among its models: there
all-linear leaves the experts alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from clusterctl.errors import UsageProblem
from clusterctl.models.shape import Parameter, Shape

if TYPE_CHECKING:
    from trainers.config.sections import Lora

_QWEN = {"gate": "gate.weight", "gate_proj": "gate_up_proj", "up_proj": "gate_up_proj", "down_proj": "down_proj"}
_MIXTRAL = {"gate": "gate.weight", "w1": "gate_up_proj", "w3": "gate_up_proj", "w2": "down_proj"}
_NAMES: dict[str, dict[str, str]] = {"qwen3_moe": _QWEN, "mixtral": _MIXTRAL}
"""Old name of a module: the parameter that it became."""


def old_names(shape: Shape) -> Mapping[str, str]:
    """Names of modules that PEFT takes for parameters of this model; empty for most models."""
    # Most of those that are not known are adapted as Qwen3-MoE is: a bound counts with it.
    return _NAMES.get(shape.model_type, {}) if shape.exact else _QWEN


def lora_on_experts(shape: Shape, lora: Lora) -> Iterator[Parameter]:
    """The adapter's parameters on experts and routers; none where the targets do not name them.

    Raises:
        UsageProblem: what PEFT cannot do with such weights.
    """
    ranks = _ranks(shape, lora)
    if ranks and shape.exact and (lora.use_dora or lora.lora_dropout):
        raise UsageProblem(
            f"model.lora.{'use_dora' if lora.use_dora else 'lora_dropout'}: PEFT cannot do it on experts",
            hint="drop it, or name other model.lora.target_modules, such as q_proj, k_proj, v_proj, o_proj",
        )
    both = {"gate_up_proj", "down_proj"} <= ranks.keys()
    for one in shape.parameters:
        target = next((name for name in ranks if one.name.endswith(f".{name}")), None)
        if target is None or one.part not in ("experts", "router"):
            continue
        module = one.name.removesuffix(f".{target.rpartition('.')[2]}")
        # A module with two adapted parameters is wrapped twice.
        inner = ".base_layer" if both and target == "gate_up_proj" else ""
        # One pair of factors for each expert, side by side in one matrix.
        rank = ranks[target] * (one.shape[0] if len(one.shape) == 3 else 1)
        name = f"base_model.model.{module}{inner}"
        yield Parameter(f"{name}.lora_A.default.weight", (rank, one.shape[-1]), one.part, linear=True)
        yield Parameter(f"{name}.lora_B.default.weight", (one.shape[-2], rank), one.part, linear=True)


def _ranks(shape: Shape, lora: Lora) -> dict[str, int]:
    """Parameters that are adapted, with the rank; twice where two weights became one."""
    names = old_names(shape)
    if lora.target_modules == ["all-linear"]:
        asked = set(names)
    else:
        asked = {old for old in names for target in lora.target_modules if f".{target}".endswith(f".{old}")}
    fused = {old for old, new in names.items() if new == "gate_up_proj"}
    if shape.exact and 0 < len(asked & fused) < len(fused):
        raise UsageProblem(
            f"model.lora.target_modules: {' and '.join(sorted(fused))} are one weight here",
            hint="name both of them, or neither",
        )
    return {names[old]: lora.r * (len(fused) if old in fused else 1) for old in names if old in asked}
