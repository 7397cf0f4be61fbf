"""The loss of answers alone: only tokens that carry loss are projected onto the vocabulary.

Prompts and padding are most of a batch, and the projection is the widest product of a small model. TRL skips
them on a GPU (in a Triton kernel), but computes all of them on a CPU; this does both.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import cross_entropy

from trainers.data.dataset import IGNORED


class Answers:
    """Scores the labelled tokens of a batch. Made once per model, after TRL prepared it."""

    def __init__(self, model: Any) -> None:
        self._wanted: torch.Tensor | None = None
        model.get_output_embeddings().register_forward_pre_hook(self._select)

    def _select(self, module: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
        return None if self._wanted is None else (arguments[0][self._wanted],)

    def score(
        self, model: Any, inputs: dict[str, torch.Tensor], *, hits: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Negative log-likelihood of each next token, where it is labelled, and (with ``hits``) whether it is
        the model's first choice. All of shape (rows, length - 1); zero and False where there is no label."""
        labels = inputs["labels"][:, 1:]
        mask = labels != IGNORED
        if labels.is_cuda:
            out = model(**inputs, use_cache=False, fused_lm_head=True)
            return -out.log_probs, mask, out.is_top1.bool() if hits else None
        self._wanted = torch.nn.functional.pad(mask, (0, 1))
        try:
            logits = model(
                input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False
            ).logits.float()
        finally:
            self._wanted = None
        targets = labels[mask]
        losses = cross_entropy(logits, targets, reduction="none")
        nll = torch.zeros(mask.shape, dtype=losses.dtype).masked_scatter(mask, losses)
        if not hits:
            return nll, mask, None
        return nll, mask, torch.zeros_like(mask).masked_scatter(mask, logits.argmax(-1) == targets)
