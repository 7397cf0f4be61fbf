"""An upper bound for a model of an architecture that is not known, from the sizes that nearly every config.json has.

No guess in silence: the shape says that it is a bound. It is one of plain attention without shared keys and a gated
MLP, with room for the low-rank and linear kinds of attention; the tests hold it against some twenty architectures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from clusterctl.errors import UsageProblem
from clusterctl.models import decoders
from clusterctl.models.decoders import linear
from clusterctl.models.entries import Entries
from clusterctl.models.shape import HeadName, Parameter, Shape

SPELLINGS = {
    "hidden_size": ("d_model", "n_embd", "dim", "model_dim"),
    "num_hidden_layers": ("n_layer", "n_layers", "num_layers"),
    "num_attention_heads": ("n_head", "n_heads", "num_heads"),
    "intermediate_size": ("ffn_dim", "n_inner", "ffn_hidden_size", "d_ff", "hidden_dim", "inner_dim"),
    "vocab_size": ("padded_vocab_size",),
    "max_position_embeddings": ("n_positions", "max_seq_len", "seq_length", "max_sequence_length"),
    "num_experts": ("num_local_experts", "n_routed_experts", "moe_num_experts"),
    "num_experts_per_tok": ("moe_topk", "moe_top_k", "num_selected_experts"),
    "moe_intermediate_size": ("expert_ffn_hidden_size", "expert_intermediate_size"),
    "shared": ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts"),
}
"""The names that model families have for the same thing."""

PROJECTIONS = 6
"""Weights of a layer's attention, each as large as the widest: plain attention has 4, gates and low ranks add to it."""


def bound(values: Mapping[str, Any], name: str, source: str, head: HeadName | None) -> Shape:
    """A shape with at least the parameters of this model; ``exact`` is False and ``notes`` says why.

    Raises:
        UsageProblem: the config has no sizes to reckon with, or is of an encoder with a decoder.
    """
    text = values.get("text_config")
    inner = text if isinstance(text, Mapping) else values
    entries = Entries(inner, {"max_position_embeddings": 2048}, SPELLINGS, source)
    model_type = str(values.get("model_type") or inner.get("model_type") or "without a name")
    if values.get("is_encoder_decoder"):
        raise UsageProblem(
            f"model {name} has an encoder and a decoder ({model_type}), which no stage trains",
            hint="take a model that is one of both",
        )
    hidden, wide = entries.size("hidden_size"), _intermediate(entries)
    heads = max(1, entries.size_or("num_attention_heads", 1))
    experts = entries.size_or("num_experts", 0)
    width = entries.size_or("moe_intermediate_size", wide) if experts else 0
    notes = [f"architecture {model_type:.40} is not known: its parameters are an upper bound, reckoned from its sizes"]
    if inner is not values:
        notes.append("only its language model is counted, not what sees or hears")
    return Shape(
        name=name,
        model_type=model_type,
        source=source,
        hidden_size=hidden,
        intermediate_size=wide,
        num_hidden_layers=entries.size("num_hidden_layers"),
        num_attention_heads=heads,
        num_key_value_heads=max(1, entries.size_or("num_key_value_heads", heads)),
        head_dim=_widest_head(entries, heads),
        vocab_size=entries.size("vocab_size"),
        max_position_embeddings=entries.size("max_position_embeddings"),
        tie_word_embeddings=False,
        parameters=tuple(_parameters(entries, heads, experts, width)),
        num_experts=experts,
        num_experts_per_tok=entries.size_or("num_experts_per_tok", experts) if experts else 0,
        moe_intermediate_size=width,
        causal=head != "masked",
        exact=False,
        notes=tuple(notes),
        head=head or "causal",
        output_layer="" if head == "classifier" else "lm_head",
    )


def _intermediate(entries: Entries) -> int:
    """Width of the MLP, four times that of the model where nothing is said, as GPT-2 and its kin mean it."""
    found = entries.get("intermediate_size")
    if isinstance(found, list):
        # A width for each layer, as Gemma 3n has it.
        return max(entries.sizes("intermediate_size"), default=1)
    return entries.size_or("intermediate_size", 4 * entries.size("hidden_size"))


def _widest_head(entries: Entries, heads: int) -> int:
    """Queries and keys of DeepSeek's heads are of two parts, and values have a width of their own."""
    parts = [entries.get(name) for name in ("qk_nope_head_dim", "qk_rope_head_dim")]
    widths = [entries.get("head_dim"), entries.get("v_head_dim"), entries.get("global_head_dim")]
    numbers = [width for width in widths if isinstance(width, int)]
    if all(isinstance(part, int) for part in parts):
        numbers.append(sum(part for part in parts if isinstance(part, int)))
    return max([*numbers, max(1, entries.size("hidden_size") // heads)])


def _parameters(entries: Entries, heads: int, experts: int, expert_width: int) -> Iterator[Parameter]:
    hidden, vocabulary, wide = entries.size("hidden_size"), entries.size("vocab_size"), _intermediate(entries)
    inner = max(hidden, heads * _widest_head(entries, heads)) * (2 if "mamba_expand" in entries.values else 1)
    if experts:
        # Beside the experts the ones that all tokens share.
        own = max(expert_width, entries.size_or("shared_expert_intermediate_size", 0))
        wide = max(1, entries.size_or("shared", 1)) * own
    yield Parameter("model.embed_tokens.weight", (vocabulary, hidden), "embedding")
    if not any(name.startswith(("rope", "rotary")) for name in entries.values):
        # Without rotary positions there may be a table of them.
        yield Parameter("model.embed_positions.weight", (entries.size("max_position_embeddings"), hidden), "embedding")
    count = entries.size("num_hidden_layers")
    if width := entries.size_or("hidden_size_per_layer_input", 0):
        # Gemma 3n: a second table, with an entry for each layer.
        own = max(vocabulary, entries.size_or("vocab_size_per_layer_input", 0))
        yield Parameter("model.embed_tokens_per_layer.weight", (own, count * width), "embedding")
    for number in range(count):
        layer = f"model.layers.{number}"
        for one in range(PROJECTIONS):
            yield from linear(f"{layer}.self_attn.{one}_proj", inner, hidden, "attention", True)
        if experts:
            yield Parameter(f"{layer}.mlp.gate.weight", (experts, hidden), "router")
            yield Parameter(f"{layer}.mlp.experts.gate_up_proj", (experts, 2 * expert_width, hidden), "experts")
            yield Parameter(f"{layer}.mlp.experts.down_proj", (experts, hidden, expert_width), "experts")
            yield Parameter(f"{layer}.mlp.experts.biases", (experts, 2 * expert_width + hidden), "experts")
        yield from decoders.gated(f"{layer}.mlp", hidden, wide, True)
        for one in range(6):
            yield from decoders.norm(f"{layer}.norm{one}", hidden)
    yield from decoders.norm("model.norm", hidden)
    yield from linear("lm_head", vocabulary, hidden, "head", True)
