"""What the forward pass keeps for the backward pass: bytes by token, layer by layer, counted operation by operation.

h is the width of the model, A that of all query heads, K that of all key heads, i that of the MLP. Counted in the
code of transformers 5.23 as autograd saves it, with the attention of a GPU (flash or memory efficient: queries, keys,
values, result, and one fp32 number for each head); held against traces in benchmarks/memory_trace.py. Other sums are
known for other code (Korthikanti and others, https://arxiv.org/abs/2205.05198, count 34 h for a GPT layer). Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clusterctl.models.shape import Parameter, Shape
from clusterctl.plan.estimates import Term
from clusterctl.plan.formats import Formats, formats, has_mask, longest, sequences
from trainers.config import RunConfig

TILE = (4096, 32768)
"""Tokens and vocabulary of one block of logits: TRL's kernels.chunked_logprob and trainer.utils."""


@dataclass(frozen=True)
class Widths:
    """Of one layer, in numbers a token."""

    hidden: int
    queries: int
    keys: int
    heads: int
    mlp: int
    """Of the MLP; of a mixture those that a token goes through."""

    @staticmethod
    def of(shape: Shape) -> Widths:
        """Of a model whose layers are alike."""
        width = shape.intermediate_size
        if shape.num_experts:
            width = shape.num_experts_per_tok * (shape.moe_intermediate_size or shape.intermediate_size)
        heads, head = shape.num_attention_heads, shape.head_dim
        return Widths(shape.hidden_size, heads * head, shape.num_key_value_heads * head, heads, width)


@dataclass(frozen=True)
class Layer:
    """What one layer keeps: ``token`` bytes for each token, ``words`` the same as a formula, ``adapted`` of it for
    adapters."""

    token: int
    words: str


def layer(config: RunConfig, shape: Shape, adapters: Sequence[Parameter]) -> Layer:
    """Bytes that a layer keeps of a token. ``adapters``: the adapter's weights of all layers, empty without one."""
    form, width = formats(config), Widths.of(shape)
    norms, names = _norms(shape), {one.name for one in shape.parameters}
    lora = config.model.adapter == "lora"
    c, whole = form.compute, not lora
    parts = [
        norms * width.hidden * _norm(form, shape, whole=whole),
        _attention(config, form, width),
        (3 if lora else 4) * c * width.mlp if shape.causal else 4 * c * width.mlp,
    ]
    fused = any(".qkv_proj." in name for name in names)
    if any(".q_norm." in name for name in names):
        kept = 4 + (4 if _like_gemma(shape) else c) if whole else 4
        parts.append(kept * (width.queries + width.keys))
    if fused:
        # Queries and keys before their rotation stay alive with the values, which are a part of the same tensor.
        parts.append(c * (width.queries + width.keys + (width.queries if whole else 0)))
    if whole:
        parts.append(_inputs(form, width, fused=fused))
    else:
        parts.append(_adapter_inputs(config, form, shape, adapters))
    if shape.num_experts:
        # Every expert gets its tokens side by side, and gives them back.
        parts.append(2 * c * shape.num_experts_per_tok * width.hidden)
    total = sum(parts)
    return Layer(total, f"{total / width.hidden:.1f} B x hidden size {width.hidden} a token and layer")


def _norms(shape: Shape) -> int:
    """Norms of the width of the model in one layer: two, four in Gemma 2."""
    first = f"{shape.layers}.0."
    own = [one for one in shape.parameters if one.part == "norm" and one.name.startswith(first)]
    return sum(one.shape == (shape.hidden_size,) and one.name.endswith("weight") for one in own) or 2


def _norm(form: Formats, shape: Shape, *, whole: bool) -> int:
    """Bytes a number. A norm computes in fp32: it keeps its input so (the stream itself where that is fp32) and, for
    the gradient of its own weight, its result before the weight, which Gemma's keep in fp32 too."""
    return 4 + ((4 if _like_gemma(shape) else form.stream) if whole else 0)


def _like_gemma(shape: Shape) -> bool:
    return shape.model_type.startswith("gemma")


def _inputs(form: Formats, width: Widths, *, fused: bool) -> int:
    """Inputs of the products: autocast copies them for each of the five, else query, key and value share one, and so
    do gate and up. Those of the last ones are counted with attention and MLP."""
    return (5 if form.autocast and not fused else 2) * form.compute * width.hidden


def _attention(config: RunConfig, form: Formats, width: Widths) -> int:
    masked, length = has_mask(config), longest(config)
    # With a mask the keys and values are repeated for all heads before the kernel gets them.
    keys = width.queries if masked or config.model.attn_implementation == "eager" else width.keys
    kept = form.compute * (2 * width.queries + 2 * keys)
    if config.model.attn_implementation == "eager":
        # The softmax in fp32, and in the format of the product behind it.
        return kept + width.heads * length * (4 + (form.compute if form.compute < 4 else 0))
    return kept + 4 * width.heads + (form.compute * length if masked else 0)


def _adapter_inputs(config: RunConfig, form: Formats, shape: Shape, adapters: Sequence[Parameter]) -> int:
    """What LoRA's first factors keep: their inputs, each its own copy where autocast makes one, and their results."""
    rank, dropout = config.model.lora.r, config.model.lora.lora_dropout > 0
    first = [one for one in adapters if ".lora_A." in one.name and f"{shape.layers}.0." in one.name]
    kept, shared = 0, set()
    for one in first:
        place, into = one.name.split(".lora_A.")[0].rsplit(".", 1)[-1], one.shape[-1]
        kept += form.compute * rank + (into if dropout else 0)
        if form.autocast or dropout:
            kept += form.compute * into
        elif place not in ("o_proj", "k_proj", "v_proj", "up_proj"):
            # Query, key and value share an input, gate and up too; that of o_proj is kept by the attention.
            kept += form.compute * into
        shared.add(place)
    if config.model.lora.use_dora:
        kept += sum(2 * form.compute * one.shape[0] for one in adapters if _is_second(one, shape))
    return kept


def _is_second(one: Parameter, shape: Shape) -> bool:
    return ".lora_B." in one.name and f"{shape.layers}.0." in one.name


@dataclass(frozen=True)
class Head:
    """The output layer: what it keeps for the backward pass, and what it needs while it works, forward and back."""

    kept: int
    forward: int
    backward: int
    words: str


def head(config: RunConfig, shape: Shape, *, learns: bool) -> Head:
    """Memory of the output layer on top of all layers.

    Our causal stages compute logits in tiles of 4096 tokens x 32768 words (TRL's ChunkedLogProbFunction), never whole;
    its gradients are summed in fp32. Stage mlm has the logits of the masked tokens, stage reward one number a text.
    """
    form, h, vocabulary = formats(config), shape.hidden_size, shape.vocab_size
    tokens = sequences(config) * longest(config)
    kept = tokens * h * (form.stream + 4 + (form.stream if config.model.adapter == "none" else 0))
    if config.stage == "reward":
        return Head(kept, 0, tokens * h * form.stream, "one number for each text")
    if config.stage == "mlm":
        masked = int(tokens * config.method.mlm_probability)
        logits = masked * vocabulary
        words = f"logits of {masked} masked tokens x {vocabulary} words, whole"
        return Head(kept + logits * (form.compute + 4), 0, logits * (4 + 4 + form.compute), words)
    # The block is that wide whatever the vocabulary.
    rows, columns = min(tokens, TILE[0]), min(vocabulary, TILE[1])
    tile = form.compute * rows * TILE[1]
    copy = form.compute * columns * h if form.stored > form.compute else 0
    chunk = form.compute * rows * h if form.stream != form.compute else 0
    weight = vocabulary * h * (4 + (form.stored if form.stored < 4 else 0)) if learns else 0
    back = tokens * h * (4 + (form.stream if form.stream < 4 else 0))
    words = f"tiles of {rows} x {TILE[1]} logits"
    words += f", gradient of the {vocabulary} x {h} weight in fp32" if learns else ""
    return Head(kept, tile + copy + chunk, tile + copy + chunk + weight + back, words)


def attention_masks(config: RunConfig) -> Term:
    """The mask itself, which rows of several lengths, or several rows in one, need."""
    rows, length = sequences(config), longest(config)
    size = rows * length * length if has_mask(config) else 0
    return Term("attention mask", size, f"1 B x {rows} x {length} x {length}", "transformers' masking_utils")


def working(config: RunConfig, shape: Shape, form: Formats) -> Term:
    """Gradients within one layer while it goes backward: of the MLP's numbers, and of its largest weight."""
    tokens, width = sequences(config) * longest(config), Widths.of(shape)
    size = tokens * (3 * form.compute * width.mlp + 2 * form.stream * width.hidden)
    words = f"gradients of {width.mlp} and {width.hidden} numbers x {tokens} tokens"
    if config.model.adapter == "none":
        largest = shape.hidden_size * shape.intermediate_size
        size += largest * (form.compute + form.gradient)
        words += ", and of one weight"
    return Term("backward pass", size, words, "docs/memory.md")
