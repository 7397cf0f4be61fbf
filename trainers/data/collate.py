"""From rows to the tensors of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from trainers.data.dataset import IGNORED


@dataclass
class Collator:
    """Pads rows of ``input_ids`` and ``labels`` (without labels: every token is its own) to the longest of them.

    Packed rows, which have ``seq_lengths``, also get ``position_ids`` that begin anew with each of their parts;
    the first token of a part has no label, as nothing before it belongs to it. transformers keeps the parts of
    such a batch apart, but only where the model gets no attention mask: ``attention_mask`` then serves for
    counting alone (see ``trainers.model.likelihood``). Flash attention wants the batch as one ``flat`` row.
    """

    pad_token_id: int
    flat: bool = False

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """A batch of shape (rows, longest), or (1, all tokens) where it is flat."""
        if "seq_lengths" in rows[0] and self.flat:
            batch = DataCollatorForLanguageModeling(self.pad_token_id, padding_free=True)(rows)
            return {**batch, "attention_mask": torch.ones_like(batch["input_ids"])}
        ids = [torch.tensor(row["input_ids"], dtype=torch.long) for row in rows]
        labels = [torch.tensor(row.get("labels", row["input_ids"]), dtype=torch.long) for row in rows]
        batch = {
            "input_ids": pad_sequence(ids, batch_first=True, padding_value=self.pad_token_id),
            "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORED),
            "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
        }
        if "seq_lengths" in rows[0]:
            width = batch["input_ids"].shape[1]
            positions = torch.stack([_positions(row["seq_lengths"], width) for row in rows])
            batch["labels"][positions == 0] = IGNORED
            batch["position_ids"] = positions
        return batch


def _positions(lengths: list[int], width: int) -> torch.Tensor:
    """0, 1, 2 ... for each part. Padding goes on counting: it comes last, so no token ever sees it."""
    parts = [torch.arange(length) for length in lengths[:-1]]
    return torch.cat([*parts, torch.arange(width - sum(lengths[:-1]))])
