"""Encoders made as BERT is, with the heads that transformers gives them for masked tokens and for one score.

Names and shapes are those of transformers' classes (5.23); the tests hold each family against its class.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from clusterctl.models.decoders import linear, norm
from clusterctl.models.entries import Entries
from clusterctl.models.shape import HeadName, Parameter


@dataclass(frozen=True)
class Encoder:
    """A family by what its modules are called."""

    prefix: str
    layer: str
    token_types: bool = True
    query: str = "attention.self.query"
    key: str = "attention.self.key"
    value: str = "attention.self.value"
    out: str = "attention.output.dense"
    attention_norm: str = "attention.output.LayerNorm"
    up: str = "intermediate.dense"
    down: str = "output.dense"
    last_norm: str = "output.LayerNorm"


BERT = Encoder("bert", "bert.encoder.layer")
ROBERTA = Encoder("roberta", "roberta.encoder.layer")
DISTILBERT = Encoder(
    "distilbert",
    "distilbert.transformer.layer",
    token_types=False,
    query="attention.q_lin",
    key="attention.k_lin",
    value="attention.v_lin",
    out="attention.out_lin",
    attention_norm="sa_layer_norm",
    up="ffn.lin1",
    down="ffn.lin2",
    last_norm="output_layer_norm",
)


def layers(entries: Entries, family: Encoder) -> Iterator[Parameter]:
    """The encoder without its head."""
    hidden, width = entries.size("hidden_size"), entries.size("intermediate_size")
    tables = [("word", "vocab_size"), ("position", "max_position_embeddings")]
    if family.token_types:
        tables.append(("token_type", "type_vocab_size"))
    for table, rows in tables:
        name = f"{family.prefix}.embeddings.{table}_embeddings.weight"
        yield Parameter(name, (entries.size(rows), hidden), "embedding")
    yield from norm(f"{family.prefix}.embeddings.LayerNorm", hidden)
    for number in range(entries.size("num_hidden_layers")):
        layer = f"{family.layer}.{number}"
        for one in (family.query, family.key, family.value, family.out):
            yield from linear(f"{layer}.{one}", hidden, hidden, "attention", True)
        yield from norm(f"{layer}.{family.attention_norm}", hidden)
        yield from linear(f"{layer}.{family.up}", width, hidden, "mlp", True)
        yield from linear(f"{layer}.{family.down}", hidden, width, "mlp", True)
        yield from norm(f"{layer}.{family.last_norm}", hidden)


def bert_head(entries: Entries, head: HeadName, tied: bool) -> Iterator[Parameter]:
    """BertForMaskedLM and BertForSequenceClassification."""
    if head == "masked":
        yield from _masked_head(entries, "cls.predictions", "transform.dense", "transform.LayerNorm", tied)
    else:
        yield from linear("bert.pooler.dense", entries.size("hidden_size"), entries.size("hidden_size"), "head", True)
        yield from linear("classifier", 1, entries.size("hidden_size"), "head", True)


def roberta_head(entries: Entries, head: HeadName, tied: bool) -> Iterator[Parameter]:
    """RobertaForMaskedLM and RobertaForSequenceClassification."""
    hidden = entries.size("hidden_size")
    if head == "masked":
        yield from _masked_head(entries, "lm_head", "dense", "layer_norm", tied)
    else:
        yield from linear("classifier.dense", hidden, hidden, "head", True)
        yield from linear("classifier.out_proj", 1, hidden, "head", True)


def distilbert_head(entries: Entries, head: HeadName, tied: bool) -> Iterator[Parameter]:
    """DistilBertForMaskedLM and DistilBertForSequenceClassification."""
    hidden, vocabulary = entries.size("hidden_size"), entries.size("vocab_size")
    if head == "masked":
        yield from linear("vocab_transform", hidden, hidden, "head", True)
        yield from norm("vocab_layer_norm", hidden)
        if not tied:
            yield Parameter("vocab_projector.weight", (vocabulary, hidden), "head", linear=True)
        yield Parameter("vocab_projector.bias", (vocabulary,), "head", linear=True)
    else:
        yield from linear("pre_classifier", hidden, hidden, "head", True)
        yield from linear("classifier", 1, hidden, "head", True)


def _masked_head(entries: Entries, name: str, dense: str, layer_norm: str, tied: bool) -> Iterator[Parameter]:
    hidden, vocabulary = entries.size("hidden_size"), entries.size("vocab_size")
    yield Parameter(f"{name}.bias", (vocabulary,), "head")
    yield from linear(f"{name}.{dense}", hidden, hidden, "head", True)
    yield from norm(f"{name}.{layer_norm}", hidden)
    if not tied:
        # The bias goes with the weight: untied there are two.
        yield from linear(f"{name}.decoder", vocabulary, hidden, "head", True)
