"""Model FLOPs utilisation: what the run computes for its model, as a share of what the GPUs could.

    MFU = tokens/s x F / (peak x GPUs),   F = k N + 12 L h s / 2   FLOPs a token

N counts the weights of all linear layers with the output layer, not the embedding look-up. k is 6 for a weight that
learns (2 forward, 4 backward) and 4 for a frozen one, as below an adapter (it needs no gradient of its own).
The second term is attention (PaLM, https://arxiv.org/abs/2204.02311, appendix B) for L layers whose heads together
are h wide, over rows of s tokens, halved because half of it is masked; it has no weights, so an adapter saves nothing.
Recomputed activations do not count: they are no work for the model.
"""

from __future__ import annotations

from typing import Any

import torch

from trainers.hardware import find


def peak_flops(card: str) -> float | None:
    """Dense FLOP/s of a card, by its name, at bf16 (fp16 before Ampere); None for a card that is not known.

    Source: trainers/hardware/gpu_types.py.
    """
    known = find(card)
    return known.half if known else None


def flops_per_token(model: torch.nn.Module, row_length: float) -> float | None:
    """F of the module's docstring for a decoder; None for a mixture of experts, where N is not what works."""
    config: Any = getattr(model, "config", None)
    layers, width = getattr(config, "num_hidden_layers", None), getattr(config, "hidden_size", None)
    experts = any(getattr(config, name, 0) for name in ("num_experts", "num_local_experts", "n_routed_experts"))
    if not layers or not width or experts:
        return None
    linear = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    products = sum((6 if one.weight.requires_grad else 4) * one.in_features * one.out_features for one in linear)
    # Some models, as Qwen3, have heads that together are wider than the model.
    head, heads = getattr(config, "head_dim", None), getattr(config, "num_attention_heads", None)
    return products + 6 * layers * (head * heads if head and heads else width) * row_length
