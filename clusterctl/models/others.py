"""Families that are made in a way of their own, GPT-2 and ModernBERT.

Names and shapes are those of transformers' classes (5.23); the tests hold each family against its class.
"""

from __future__ import annotations

from collections.abc import Iterator

from clusterctl.models.decoders import linear, norm
from clusterctl.models.entries import Entries
from clusterctl.models.shape import HeadName, Parameter, PartName

GPT2_DEFAULTS = {
    "vocab_size": 50257,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
}
GPT2_SPELLINGS = {
    "hidden_size": ("n_embd",),
    "num_hidden_layers": ("n_layer",),
    "num_attention_heads": ("n_head",),
    "max_position_embeddings": ("n_positions",),
    "intermediate_size": ("n_inner",),
}
MODERN_DEFAULTS = {
    "vocab_size": 50368,
    "hidden_size": 768,
    "intermediate_size": 1152,
    "num_hidden_layers": 22,
    "num_attention_heads": 12,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
    "norm_bias": False,
    "attention_bias": False,
    "mlp_bias": False,
    "decoder_bias": True,
    "classifier_bias": False,
}


def gpt2(entries: Entries) -> Iterator[Parameter]:
    """GPT2Model: learned positions, and Conv1D where others have nn.Linear."""
    hidden = entries.size("hidden_size")
    inner = entries.size_or("intermediate_size", 4 * hidden)
    yield Parameter("transformer.wte.weight", (entries.size("vocab_size"), hidden), "embedding")
    yield Parameter("transformer.wpe.weight", (entries.size("max_position_embeddings"), hidden), "embedding")
    for number in range(entries.size("num_hidden_layers")):
        layer = f"transformer.h.{number}"
        yield from norm(f"{layer}.ln_1", hidden)
        yield from _conv1d(f"{layer}.attn.c_attn", hidden, 3 * hidden, "attention")
        yield from _conv1d(f"{layer}.attn.c_proj", hidden, hidden, "attention")
        yield from norm(f"{layer}.ln_2", hidden)
        yield from _conv1d(f"{layer}.mlp.c_fc", hidden, inner, "mlp")
        yield from _conv1d(f"{layer}.mlp.c_proj", inner, hidden, "mlp")
    yield from norm("transformer.ln_f", hidden)


def _conv1d(name: str, into: int, out: int, part: PartName) -> Iterator[Parameter]:
    yield Parameter(f"{name}.weight", (into, out), part, linear=True, transposed=True)
    yield Parameter(f"{name}.bias", (out,), part, linear=True)


def modern(entries: Entries) -> Iterator[Parameter]:
    """ModernBertModel: rotary positions, a gated MLP, and no norm before the first attention."""
    hidden, inner = entries.size("hidden_size"), entries.size("intermediate_size")
    bias, attention, mlp = (entries.flag(name) for name in ("norm_bias", "attention_bias", "mlp_bias"))
    yield Parameter("model.embeddings.tok_embeddings.weight", (entries.size("vocab_size"), hidden), "embedding")
    yield from norm("model.embeddings.norm", hidden, bias=bias)
    for number in range(entries.size("num_hidden_layers")):
        layer = f"model.layers.{number}"
        if number:
            yield from norm(f"{layer}.attn_norm", hidden, bias=bias)
        yield from linear(f"{layer}.attn.Wqkv", 3 * hidden, hidden, "attention", attention)
        yield from linear(f"{layer}.attn.Wo", hidden, hidden, "attention", attention)
        yield from norm(f"{layer}.mlp_norm", hidden, bias=bias)
        yield from linear(f"{layer}.mlp.Wi", 2 * inner, hidden, "mlp", mlp)
        yield from linear(f"{layer}.mlp.Wo", hidden, inner, "mlp", mlp)
    yield from norm("model.final_norm", hidden, bias=bias)


def modern_head(entries: Entries, head: HeadName, tied: bool) -> Iterator[Parameter]:
    """ModernBertForMaskedLM and ModernBertForSequenceClassification."""
    hidden, vocabulary = entries.size("hidden_size"), entries.size("vocab_size")
    yield from linear("head.dense", hidden, hidden, "head", entries.flag("classifier_bias"))
    yield from norm("head.norm", hidden, bias=entries.flag("norm_bias"))
    if head == "classifier":
        yield from linear("classifier", 1, hidden, "head", True)
        return
    if not tied:
        yield Parameter("decoder.weight", (vocabulary, hidden), "head", linear=True)
    if entries.flag("decoder_bias"):
        yield Parameter("decoder.bias", (vocabulary,), "head", linear=True)
