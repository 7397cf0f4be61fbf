"""Work of a training step for the model: F of trainers/runtime/compute.py, from the shape alone.

    F = k N + 12 L h s / 2   FLOPs a token

N: weights of the linear layers with the output layer, without the embedding's look-up; k: 6 for a weight that learns
(2 forward, 4 backward), 4 for a frozen one. The second term is attention over rows of s tokens (PaLM,
https://arxiv.org/abs/2204.02311, appendix B), L layers whose heads together are h wide, half of it masked.
Of a mixture of experts only those that work for a token count, ``num_experts_per_tok`` of ``num_experts``; there
compute.py gives no number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from clusterctl.models.adapter import trainable
from clusterctl.models.shape import Parameter, Shape

if TYPE_CHECKING:
    from trainers.config import RunConfig

LEARNS, FROZEN = 6, 4
"""FLOPs of a token for each number of a weight."""


def flops_per_token(
    shape: Shape, config: RunConfig, row_length: float, stored: Sequence[Parameter] | None = None
) -> float:
    """FLOPs of one token, forward and backward, in a row of ``row_length`` tokens.

    ``stored``: the weights of the adapter that the run goes on training. Raises UsageProblem as ``trainable`` does.
    """
    return weights(shape, trainable(shape, config.model, config.stage, stored)) + attention(shape, row_length)


def attention(shape: Shape, row_length: float) -> float:
    """The second term: products of queries with keys and of what they weigh with values, forward and backward."""
    return 6 * shape.num_hidden_layers * shape.head_dim * shape.num_attention_heads * row_length


def weights(shape: Shape, learning: Sequence[Parameter]) -> float:
    """The first term, for the parameters of the model and of its adapter."""
    # A module that learns whole beside an adapter takes the place of the model's own.
    learn = {_plain(one.name) for one in learning}
    own = {one.name for one in shape.parameters}
    products = sum((LEARNS if one.name in learn else FROZEN) * active(shape, one) for one in shape.parameters)
    if shape.tie_word_embeddings:
        products += (LEARNS if shape.embedding.name in learn else FROZEN) * shape.embedding.count
    return products + sum(LEARNS * active(shape, one) for one in learning if _plain(one.name) not in own)


def _plain(name: str) -> str:
    return name.removeprefix("base_model.model.").replace(".modules_to_save.default", "")


def active(shape: Shape, one: Parameter) -> float:
    """Numbers of a parameter that a token is multiplied with."""
    if one.part == "experts":
        return one.count * shape.num_experts_per_tok / shape.num_experts
    if one.part == "router" and not one.linear:
        return one.count
    # A tower for pictures rests while text is read.
    return one.count if one.linear and len(one.shape) == 2 and one.part != "other" else 0
