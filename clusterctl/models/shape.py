"""The noun of this package: a model as its parameters."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Literal

PartName = Literal["embedding", "attention", "mlp", "experts", "router", "norm", "head", "other"]

HeadName = Literal["causal", "masked", "classifier"]
"""What the model is loaded as: AutoModelForCausalLM, ...ForMaskedLM, ...ForSequenceClassification with one label."""


@dataclass(frozen=True)
class Parameter:
    """One parameter under the name and with the shape that transformers gives it.

    ``linear``: the weight or bias of an nn.Linear, or of a Conv1D, whose weight (GPT-2) is ``transposed``: (in, out).
    """

    name: str
    shape: tuple[int, ...]
    part: PartName
    linear: bool = False
    transposed: bool = False

    @cached_property
    def count(self) -> int:
        """Numbers in it."""
        return prod(self.shape)


@dataclass(frozen=True)
class Shape:
    """What of a model decides memory and time. Lengths in tokens.

    ``parameters`` names a tied weight once, as the embedding. ``exact`` is False where the architecture is not known:
    then they are an upper bound, and so they are not every weight of a model with pictures, see ``notes``.
    ``source`` says in words where this is from: a config.json, the hub's cache, the shipped catalogue.
    ``tie_word_embeddings``: there is an output layer over the vocabulary, and its weight is the embedding.
    """

    name: str
    model_type: str
    source: str
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    max_position_embeddings: int
    tie_word_embeddings: bool
    parameters: tuple[Parameter, ...]
    num_experts: int = 0
    num_experts_per_tok: int = 0
    moe_intermediate_size: int = 0
    causal: bool = True
    exact: bool = True
    notes: tuple[str, ...] = ()
    head: HeadName = "causal"
    layers: str = "model.layers"
    """Name of the list of layers, the parameters of layer 3 are below ``model.layers.3.``."""
    output_layer: str = ""
    """Name of the layer that gives a number to each entry of the vocabulary; empty for a classifier."""

    @cached_property
    def total(self) -> int:
        """All parameters."""
        return sum(parameter.count for parameter in self.parameters)

    def part(self, *names: PartName) -> int:
        """Parameters of these parts."""
        return sum(parameter.count for parameter in self.parameters if parameter.part in names)

    @property
    def embedding(self) -> Parameter:
        """The table of token embeddings, which comes before those of positions."""
        return next(one for one in self.parameters if one.part == "embedding")
