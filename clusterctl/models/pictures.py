"""The part of Gemma 3 that sees: a SigLIP tower and the projection behind it. Loaded, and counted, in text runs too.

Names and shapes are those of transformers' Gemma3ForConditionalGeneration (5.23).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from clusterctl.models.decoders import linear, norm
from clusterctl.models.entries import Entries
from clusterctl.models.shape import Parameter

COLOURS = 3

DEFAULTS = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "image_size": 224,
    "patch_size": 16,
}
"""Those of SiglipVisionConfig."""


def known(values: Mapping[str, Any]) -> bool:
    """Whether this config.json has a tower without the pooling head of SigLIP, as Gemma 3 has."""
    own = values.get("vision_config")
    return isinstance(own, Mapping) and own.get("vision_use_head") is False


def tower(entries: Entries, text_width: int) -> Iterator[Parameter]:
    """Everything before the language model; all of it counts as ``other``.

    Args:
        entries: ``vision_config`` of the model's config.json.
        text_width: hidden size of the language model.
    """
    name, width, patch = "model.vision_tower", entries.size("hidden_size"), entries.size("patch_size")
    yield from (replace(one, part="other") for one in _tower(entries, name, width, patch))
    yield Parameter("model.multi_modal_projector.mm_input_projection_weight", (width, text_width), "other")
    yield Parameter("model.multi_modal_projector.mm_soft_emb_norm.weight", (width,), "other")


def _tower(entries: Entries, name: str, width: int, patch: int) -> Iterator[Parameter]:
    places = (entries.size("image_size") // patch) ** 2
    yield Parameter(f"{name}.embeddings.patch_embedding.weight", (width, COLOURS, patch, patch), "other")
    yield Parameter(f"{name}.embeddings.patch_embedding.bias", (width,), "other")
    yield Parameter(f"{name}.embeddings.position_embedding.weight", (places, width), "other")
    inner = entries.size("intermediate_size")
    for number in range(entries.size("num_hidden_layers")):
        layer = f"{name}.encoder.layers.{number}"
        for one in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from linear(f"{layer}.self_attn.{one}", width, width, "other", True)
        yield from linear(f"{layer}.mlp.fc1", inner, width, "other", True)
        yield from linear(f"{layer}.mlp.fc2", width, inner, "other", True)
        yield from norm(f"{layer}.layer_norm1", width)
        yield from norm(f"{layer}.layer_norm2", width)
    yield from norm(f"{name}.post_layernorm", width)
