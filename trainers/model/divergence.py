"""How far a model has moved from its reference: the exact KL divergence, token by token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch

from trainers.errors import InputProblem

CHUNK = 2**24
"""Numbers of one block of positions times vocabulary: 64 MiB in fp32."""

KEPT = 2**32
"""Bytes of reference distributions that are kept at most, over all processes."""

Text = tuple[list[int], list[int]]
"""The tokens of a prompt and of the answer to it."""


class Divergence:
    """Mean of KL(policy || reference) over the tokens of fixed answers, in nats.

    At every token of an answer, its end mark included, both models say what the next token may be, given the
    prompt and the answer so far; the sum over the whole vocabulary of p (ln p - ln q) is exact, not sampled.
    The mean weighs every token alike. Only the texts are not the policy's own: they are answers of the data.
    """

    def __init__(self, texts: Sequence[Text], vocabulary: int, device: torch.device, rank: int, processes: int) -> None:
        self._device = device
        self._rank, self._processes = rank, processes
        # The logits at a position are about the token behind it.
        step = max(1, CHUNK // vocabulary)
        self._blocks = [
            (prompt + answer, range(first, min(first + step, len(prompt) + len(answer) - 1)))
            for prompt, answer in texts
            for first in range(len(prompt) - 1, len(prompt) + len(answer) - 1, step)
        ]
        self._tokens = sum(len(answer) for _, answer in texts)
        self._bytes = 4 * self._tokens * vocabulary
        self._kept: list[torch.Tensor | None] = []

    def remember(self, reference: Any) -> None:
        """Keep what the reference says, for a run that lets go of it. Raises InputProblem when that is too much."""
        if self._bytes > KEPT:
            raise InputProblem(
                f"without the reference its {self._bytes / 2**30:.1f} GiB of distributions over {self._tokens} tokens "
                f"would have to be kept for the KL, at most {KEPT / 2**30:.0f} GiB are",
                hint="lower method.kl_prompts (0 measures no KL), or set method.precompute_ref_log_probs to false",
            )
        self._kept = [p.cpu() if mine else None for mine, p in self._walk(reference)]

    def measure(
        self,
        policy: Any,
        reference: Any,
        switched: Callable[[], AbstractContextManager[Any]],
        total: Callable[[torch.Tensor], torch.Tensor],
    ) -> float:
        """The KL now. Collective: every process runs the same forward passes, each compares its share.

        Args:
            policy: the model in training.
            reference: the other model; None where ``remember`` was called.
            switched: a context in which ``reference`` is the reference, for adapters that are switched over.
            total: sums a tensor over all processes.
        """
        sums = torch.zeros((), dtype=torch.float64, device=self._device)
        for index, (mine, p) in enumerate(self._walk(policy)):
            if self._kept:
                q = self._kept[index]
            else:
                with switched():
                    q = self._log_probabilities(reference, *self._blocks[index])
            if mine:
                q = q.to(self._device)
                sums += torch.nn.functional.kl_div(q, p, reduction="sum", log_target=True)
        return float(total(sums)) / self._tokens

    def _walk(self, model: Any) -> Iterator[tuple[bool, torch.Tensor]]:
        for index, block in enumerate(self._blocks):
            yield index % self._processes == self._rank, self._log_probabilities(model, *block)

    def _log_probabilities(self, model: Any, ids: list[int], positions: range) -> torch.Tensor:
        """Of all next tokens at these positions, shape (positions, vocabulary), fp32."""
        row = torch.tensor([ids[: positions.stop]], device=self._device)
        with torch.no_grad(), only(model, positions):
            logits = model(input_ids=row, attention_mask=torch.ones_like(row), use_cache=False).logits
        return logits[0].float().log_softmax(-1)


@contextmanager
def only(model: Any, positions: range) -> Iterator[None]:
    """Let the output head see these positions alone: all of them times the vocabulary would not fit."""
    head = model.get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda _, inputs: (inputs[0][:, positions.start : positions.stop],))
    try:
        yield
    finally:
        hook.remove()
