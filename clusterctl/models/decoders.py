"""Decoders made as Llama is: attention and a gated MLP behind norms, in the variants of the families.

Names and shapes are those of transformers' classes (5.23: a model's experts are one parameter); the tests hold each
family against its class on the meta device.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from clusterctl.models.entries import Entries
from clusterctl.models.shape import Parameter, PartName

TWO_NORMS = ("input_layernorm", "post_attention_layernorm")


@dataclass(frozen=True)
class Decoder:
    """In what a family differs. A bias is there, not there, or as the named entry of the config says."""

    qkv_bias: bool | str = False
    o_bias: bool | str = False
    mlp_bias: bool | str = False
    qk_norm: Literal["no", "head", "all"] = "no"
    """Norms of queries and keys: none, over each head, over all heads together."""
    norms: tuple[str, ...] = TWO_NORMS
    fused: bool = False
    """Queries, keys and values are one weight, and so are the MLP's gate and its up-projection."""
    experts: Literal["no", "all", "chosen"] = "no"
    """Mixture of experts: in no layer, in all, or in those that the config chooses, with shared experts if it says."""


def head_dim(entries: Entries) -> int:
    """Width of a head: the entry, else that of the model shared out over the heads."""
    return max(1, entries.size_or("head_dim", entries.size("hidden_size") // entries.size("num_attention_heads")))


def key_value_heads(entries: Entries) -> int:
    """Heads of keys and values; as many as queries where the config does not say."""
    return max(1, entries.size_or("num_key_value_heads", entries.size("num_attention_heads")))


def layers(entries: Entries, family: Decoder, prefix: str = "model") -> Iterator[Parameter]:
    """The decoder without its head: embedding, layers, last norm."""
    hidden = entries.size("hidden_size")
    yield Parameter(f"{prefix}.embed_tokens.weight", (entries.size("vocab_size"), hidden), "embedding")
    for number in range(entries.size("num_hidden_layers")):
        name = f"{prefix}.layers.{number}"
        yield from _attention(entries, family, f"{name}.self_attn")
        if family.experts == "all" or (family.experts == "chosen" and _is_sparse(entries, number)):
            yield from _experts(entries, f"{name}.mlp")
        else:
            yield from gated(f"{name}.mlp", hidden, entries.size("intermediate_size"), entries.flag(family.mlp_bias),
                             fused=family.fused)  # fmt: skip
        for norm in family.norms:
            yield Parameter(f"{name}.{norm}.weight", (hidden,), "norm")
    yield Parameter(f"{prefix}.norm.weight", (hidden,), "norm")


def _attention(entries: Entries, family: Decoder, name: str) -> Iterator[Parameter]:
    hidden, head = entries.size("hidden_size"), head_dim(entries)
    queries, keys = entries.size("num_attention_heads") * head, key_value_heads(entries) * head
    bias = entries.flag(family.qkv_bias)
    if family.fused:
        yield from linear(f"{name}.qkv_proj", queries + 2 * keys, hidden, "attention", bias)
    else:
        for letter, width in (("q", queries), ("k", keys), ("v", keys)):
            yield from linear(f"{name}.{letter}_proj", width, hidden, "attention", bias)
    yield from linear(f"{name}.o_proj", hidden, queries, "attention", entries.flag(family.o_bias))
    if family.qk_norm != "no":
        whole = family.qk_norm == "all"
        yield Parameter(f"{name}.q_norm.weight", (queries if whole else head,), "norm")
        yield Parameter(f"{name}.k_norm.weight", (keys if whole else head,), "norm")


def _is_sparse(entries: Entries, number: int) -> bool:
    """Whether this layer has experts, as Qwen2MoeDecoderLayer and Qwen3MoeDecoderLayer decide it."""
    chosen = (number + 1) % entries.size("decoder_sparse_step") == 0
    return chosen and entries.size("num_experts", 0) > 0 and number not in entries.sizes("mlp_only_layers")


def _experts(entries: Entries, name: str) -> Iterator[Parameter]:
    hidden, count = entries.size("hidden_size"), entries.size("num_experts")
    width = entries.size("moe_intermediate_size")
    # A parameter of its own class, no nn.Linear: adapters on all-linear leave router and experts alone.
    yield Parameter(f"{name}.gate.weight", (count, hidden), "router")
    yield Parameter(f"{name}.experts.gate_up_proj", (count, 2 * width, hidden), "experts")
    yield Parameter(f"{name}.experts.down_proj", (count, hidden, width), "experts")
    if shared := entries.size_or("shared_expert_intermediate_size", 0):
        yield from gated(f"{name}.shared_expert", hidden, shared, False)
        yield from linear(f"{name}.shared_expert_gate", 1, hidden, "router", False)


def gated(name: str, hidden: int, width: int, bias: bool, *, fused: bool = False) -> Iterator[Parameter]:
    """The weights of an MLP with a gate."""
    if fused:
        yield from linear(f"{name}.gate_up_proj", 2 * width, hidden, "mlp", bias)
    else:
        yield from linear(f"{name}.gate_proj", width, hidden, "mlp", bias)
        yield from linear(f"{name}.up_proj", width, hidden, "mlp", bias)
    yield from linear(f"{name}.down_proj", hidden, width, "mlp", bias)


def linear(name: str, out: int, into: int, part: PartName, bias: bool) -> Iterator[Parameter]:
    """An nn.Linear: its weight, and its bias where it has one."""
    yield Parameter(f"{name}.weight", (out, into), part, linear=True)
    if bias:
        yield Parameter(f"{name}.bias", (out,), part, linear=True)


def norm(name: str, width: int, *, bias: bool = True) -> Iterator[Parameter]:
    """An nn.LayerNorm."""
    yield Parameter(f"{name}.weight", (width,), "norm")
    if bias:
        yield Parameter(f"{name}.bias", (width,), "norm")
