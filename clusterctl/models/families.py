"""The model families that are known to the last parameter, and how a config.json becomes a ``Shape``.

The defaults are those of transformers' configuration classes (5.23), for entries that a config.json leaves out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from clusterctl.errors import UsageProblem
from clusterctl.models import decoders, encoders, others, pictures
from clusterctl.models.decoders import Decoder, linear
from clusterctl.models.entries import Entries
from clusterctl.models.shape import HeadName, Parameter, Shape

GEMMA_NORMS = (*decoders.TWO_NORMS, "pre_feedforward_layernorm", "post_feedforward_layernorm")
GEMMA3 = Decoder("attention_bias", "attention_bias", qk_norm="head", norms=GEMMA_NORMS)

_SIZES = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
}
_QWEN = _SIZES | {
    "vocab_size": 151936,
    "intermediate_size": 22016,
    "num_key_value_heads": 32,
    "max_position_embeddings": 32768,
}
_QWEN_MOE = _QWEN | {
    "hidden_size": 2048,
    "num_hidden_layers": 24,
    "decoder_sparse_step": 1,
}
_MISTRAL = _SIZES | {"intermediate_size": 14336, "num_key_value_heads": 8, "max_position_embeddings": 131072}
_GEMMA = _SIZES | {"vocab_size": 256000, "head_dim": 256, "max_position_embeddings": 8192, "tie_word_embeddings": True}
_GEMMA2 = _GEMMA | {
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
}
_GEMMA3 = _GEMMA2 | {"vocab_size": 262208, "max_position_embeddings": 131072}
_BERT = _SIZES | {
    "vocab_size": 30522,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "tie_word_embeddings": True,
}
_EXPERTS = {"num_experts": ("num_local_experts",)}

Head = Callable[[Entries, HeadName, bool], Iterator[Parameter]]


@dataclass(frozen=True)
class Family:
    """How the models of one ``model_type`` are built."""

    body: Callable[[Entries], Iterator[Parameter]]
    defaults: Mapping[str, Any]
    head: Head
    layers: str = "model.layers"
    output_layer: str = "lm_head"
    causal: bool = True
    spellings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    sees: bool = False
    """It has a part for pictures; ``text_config`` of its config.json is the language model."""


def family_of(values: Mapping[str, Any]) -> Family | None:
    """The family of a config.json, None where its architecture is not known."""
    family = FAMILIES.get(str(values.get("model_type")))
    if family and family.sees and not pictures.known(values):
        return None
    return family


def causal_head(entries: Entries, head: HeadName, tied: bool) -> Iterator[Parameter]:
    """The output layer, or one score for a text (``num_labels`` 1). Nothing where the output is the embedding."""
    if head == "classifier":
        yield from linear("score", 1, entries.size("hidden_size"), "head", False)
    elif not tied:
        yield from linear("lm_head", entries.size("vocab_size"), entries.size("hidden_size"), "head", False)


def _decoder(
    family: Decoder, defaults: Mapping[str, Any], spellings: Mapping[str, tuple[str, ...]] | None = None
) -> Family:
    return Family(partial(decoders.layers, family=family), defaults, causal_head, spellings=spellings or _EXPERTS)


def _encoder(
    family: encoders.Encoder, head: Head, output: str, spellings: Mapping[str, tuple[str, ...]] | None = None
) -> Family:
    return Family(partial(encoders.layers, family=family), _BERT, head, family.layer, output, False, spellings or {})


_XLM_ROBERTA = _encoder(encoders.ROBERTA, encoders.roberta_head, "lm_head.decoder")

FAMILIES: dict[str, Family] = {
    "llama": _decoder(Decoder("attention_bias", "attention_bias", "mlp_bias"), _SIZES),
    "smollm3": _decoder(
        Decoder("attention_bias", "attention_bias", "mlp_bias"),
        _SIZES
        | {
            "vocab_size": 128256,
            "hidden_size": 2048,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "num_key_value_heads": 4,
            "max_position_embeddings": 32768,
            "tie_word_embeddings": True,
        },
    ),
    "qwen2": _decoder(Decoder(qkv_bias=True), _QWEN),
    "qwen3": _decoder(Decoder("attention_bias", "attention_bias", qk_norm="head"), _QWEN | {"head_dim": 128}),
    "qwen2_moe": _decoder(
        Decoder(qkv_bias="qkv_bias", experts="chosen"),
        _QWEN_MOE
        | {
            "qkv_bias": True,
            "intermediate_size": 5632,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
            "moe_intermediate_size": 1408,
            "shared_expert_intermediate_size": 5632,
            "num_experts_per_tok": 4,
            "num_experts": 60,
        },
    ),
    "qwen3_moe": _decoder(
        Decoder("attention_bias", "attention_bias", qk_norm="head", experts="chosen"),
        _QWEN_MOE
        | {
            "intermediate_size": 6144,
            "num_key_value_heads": 4,
            "moe_intermediate_size": 768,
            "num_experts_per_tok": 8,
            "num_experts": 128,
        },
    ),
    "mistral": _decoder(Decoder(), _MISTRAL),
    "mixtral": _decoder(
        Decoder(experts="all"),
        _MISTRAL | {"num_experts_per_tok": 2, "num_experts": 8, "moe_intermediate_size": 14336},
        _EXPERTS | {"moe_intermediate_size": ("intermediate_size",)},
    ),
    "gemma": _decoder(
        Decoder("attention_bias", "attention_bias"),
        _GEMMA
        | {
            "hidden_size": 3072,
            "intermediate_size": 24576,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
        },
    ),
    "gemma2": _decoder(Decoder("attention_bias", "attention_bias", norms=GEMMA_NORMS), _GEMMA2),
    "gemma3_text": _decoder(GEMMA3, _GEMMA3),
    "gemma3": Family(
        partial(decoders.layers, family=GEMMA3, prefix="model.language_model"),
        _GEMMA3,
        causal_head,
        layers="model.language_model.layers",
        sees=True,
    ),
    "phi3": _decoder(
        Decoder(fused=True),
        _SIZES | {"vocab_size": 32064, "hidden_size": 3072, "intermediate_size": 8192, "max_position_embeddings": 4096},
    ),
    "olmo2": _decoder(
        Decoder(
            "attention_bias",
            "attention_bias",
            qk_norm="all",
            norms=("post_attention_layernorm", "post_feedforward_layernorm"),
        ),
        _SIZES | {"vocab_size": 50304},
    ),
    "gpt2": Family(others.gpt2, others.GPT2_DEFAULTS, causal_head, "transformer.h", spellings=others.GPT2_SPELLINGS),
    "modernbert": Family(
        others.modern, others.MODERN_DEFAULTS, others.modern_head, output_layer="decoder", causal=False
    ),
    "bert": _encoder(encoders.BERT, encoders.bert_head, "cls.predictions.decoder"),
    "roberta": replace(_XLM_ROBERTA, defaults=_BERT | {"vocab_size": 50265}),
    "camembert": _XLM_ROBERTA,
    "xlm-roberta": _XLM_ROBERTA,
    "distilbert": _encoder(
        encoders.DISTILBERT,
        encoders.distilbert_head,
        "vocab_projector",
        {
            "hidden_size": ("dim",),
            "intermediate_size": ("hidden_dim",),
            "num_hidden_layers": ("n_layers",),
            "num_attention_heads": ("n_heads",),
        },
    ),
}


def known(values: Mapping[str, Any], family: Family, name: str, source: str, head: HeadName | None) -> Shape:
    """The shape of a model of a known family.

    Args:
        values: its config.json.
        family: what its model_type names.
        name: what the user calls it.
        source: where the config is from, in words.
        head: what it is loaded as; None: what its family is for.

    Raises:
        UsageProblem: sizes that are missing or impossible, a head that the family does not have.
    """
    text = values.get("text_config") if family.sees else values
    if not isinstance(text, Mapping):
        raise UsageProblem(f"{source} has no text_config", hint="fetch or save the model again")
    for needed in ("hidden_size", "num_hidden_layers"):
        # transformers would take its own size for these: a file without them is no model's.
        Entries(text, {}, family.spellings, source).size(needed)
    entries = Entries(text, family.defaults, family.spellings, source)
    head = _head(values, family, name, head)
    tied = head != "classifier" and Entries(values, family.defaults).flag("tie_word_embeddings")
    parameters = (*_pictures(values, family, entries), *family.body(entries), *family.head(entries, head, tied))
    experts = entries.size_or("num_experts", 0)
    return Shape(
        name=name,
        model_type=str(values.get("model_type")),
        source=source,
        hidden_size=entries.size("hidden_size"),
        # GPT-2 says nothing where it is four times the width.
        intermediate_size=entries.size_or("intermediate_size", 4 * entries.size("hidden_size")),
        num_hidden_layers=entries.size("num_hidden_layers"),
        num_attention_heads=entries.size("num_attention_heads"),
        num_key_value_heads=decoders.key_value_heads(entries),
        head_dim=decoders.head_dim(entries),
        vocab_size=entries.size("vocab_size"),
        max_position_embeddings=entries.size("max_position_embeddings"),
        tie_word_embeddings=tied,
        parameters=parameters,
        num_experts=experts,
        num_experts_per_tok=entries.size("num_experts_per_tok", 0) if experts else 0,
        moe_intermediate_size=entries.size("moe_intermediate_size") if experts else 0,
        causal=family.causal,
        head=head,
        layers=family.layers,
        output_layer="" if head == "classifier" else family.output_layer,
    )


def _head(values: Mapping[str, Any], family: Family, name: str, asked: HeadName | None) -> HeadName:
    own: HeadName = "causal" if family.causal else "masked"
    head = asked or own
    if head not in (own, "classifier"):
        wants = "the next token" if head == "causal" else "masked tokens"
        raise UsageProblem(
            f"model {name} is a {values.get('model_type')}, which has no head for {wants}",
            hint="stage mlm takes encoders, all others take decoders",
        )
    return head


def _pictures(values: Mapping[str, Any], family: Family, text: Entries) -> Iterator[Parameter]:
    if family.sees:
        entries = Entries(values["vision_config"], pictures.DEFAULTS, source=text.source)
        yield from pictures.tower(entries, text.size("hidden_size"))
