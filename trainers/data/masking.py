"""Which tokens an encoder has to guess, as in BERT (https://arxiv.org/abs/1810.04805).

transformers' collator draws from the global generator while batches are fetched ahead, so a resumed run would mask
other tokens; and it takes a whole Chinese sentence for one word. Here the tokenizer says what a word is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from trainers.data.dataset import IGNORED
from trainers.data.documents import NO_WORD

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Masking:
    """How rows are masked: which share of tokens, whether whole words, and by which token."""

    probability: float
    whole_word: bool
    mask_token: int
    vocabulary: int

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, probability: float, whole_word: bool) -> Masking:
        """With the mask token of a tokenizer, which has to have one."""
        return cls(probability, whole_word, tokenizer.mask_token_id, len(tokenizer))

    def __call__(
        self, ids: torch.Tensor, words: torch.Tensor, dice: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Masked ids and labels of rows, all of shape (rows, length).

        Of the chosen tokens 80 % become the mask token, 10 % any token, and 10 % stay. All carry their label.

        Args:
            ids: token ids.
            words: number of each token's word in its row; NO_WORD for marks and padding, which are not chosen.
            dice: a generator on the CPU; the same gives the same masks on every device.
        """

        def draw() -> torch.Tensor:
            return torch.rand(ids.shape, generator=dice).to(ids.device)

        # Tokens of a word share the number that its first place would have drawn.
        luck = draw().gather(1, words.clamp(min=0)) if self.whole_word else draw()
        luck = luck.masked_fill(words == NO_WORD, 1)
        # At least one in each row, as in BERT: short rows would teach nothing.
        chosen = (luck < self.probability) | ((luck == luck.min(1, keepdim=True).values) & (luck < 1))
        fate = draw()
        any_token = (draw() * self.vocabulary).long()
        masked = torch.where(chosen & (fate < 0.8), self.mask_token, ids)
        masked = torch.where(chosen & (fate >= 0.8) & (fate < 0.9), any_token, masked)
        return masked, torch.where(chosen, ids, IGNORED)
