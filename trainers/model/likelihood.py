"""How likely a model finds the labelled tokens: only these are projected onto the vocabulary.

Prompts and padding are most of a batch, and the projection is the widest product of a small model. TRL skips
them on a GPU (in a Triton kernel), but computes all of them on a CPU; this does both.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import cross_entropy, pad

from trainers.data.dataset import IGNORED

LARGE = 2**30
"""Bytes of logits from which on a CPU too they are computed in parts, and once more for the gradient."""


class Likelihood:
    """Scores the labelled tokens of a batch. Made once per model, after TRL prepared it.

    Args:
        model: with the head that its kind has.
        ahead: how far a label lies ahead of the token that guesses it: 1 for the next token, 0 for a masked one.
    """

    def __init__(self, model: Any, *, ahead: int = 1) -> None:
        self._ahead = ahead
        self._wanted: torch.Tensor | None = None
        head = model.get_output_embeddings()
        self._vocabulary = head.weight.shape[0]
        head.register_forward_pre_hook(self._select)

    def _select(self, module: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
        return None if self._wanted is None else (arguments[0][self._wanted],)

    def score(
        self, model: Any, inputs: dict[str, Any], *, hits: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Negative log-likelihood of each labelled token, where these are, and (with ``hits``) whether it is the
        model's first choice. All of shape (rows, length - ahead); zero and False where there is no label."""
        labels = inputs["labels"][:, self._ahead :]
        mask = labels != IGNORED
        given = {name: value for name, value in inputs.items() if name not in ("labels", "words")}
        if "position_ids" in given:
            # transformers keeps packed rows apart by their positions, but not when it is given a mask of padding.
            del given["attention_mask"]
        if self._ahead:
            given["use_cache"] = False
            if labels.is_cuda or int(mask.sum()) * self._vocabulary * 4 > LARGE:
                out = model(**given, labels=inputs["labels"], fused_lm_head=True)
                return -out.log_probs, mask, out.is_top1.bool() if hits else None
        self._wanted = pad(mask, (0, self._ahead))
        try:
            logits = model(**given).logits.float()
        finally:
            self._wanted = None
        targets = labels[mask]
        losses = cross_entropy(logits, targets, reduction="none")
        nll = torch.zeros(mask.shape, dtype=losses.dtype, device=losses.device).masked_scatter(mask, losses)
        if not hits:
            return nll, mask, None
        return nll, mask, torch.zeros_like(mask).masked_scatter(mask, logits.argmax(-1) == targets)
