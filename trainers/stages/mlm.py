"""Stage ``mlm``: masked language modelling of an encoder, on transformers' Trainer.

Masks of training rows are drawn anew in each step, from the seed, the step and the process alone: a resumed run
draws the same. Masks of held-out rows are drawn once, so that before and after are measured on the same tokens.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import torch
from datasets import Dataset
from torch.nn.utils.rnn import pad_sequence
from transformers import PrinterCallback, TrainingArguments

from trainers.config.stages.mlm import Mlm
from trainers.data.dataset import IGNORED
from trainers.data.documents import NO_WORD
from trainers.data.examples import Examples
from trainers.data.masking import Masking
from trainers.data.tokenised import prepare_rows
from trainers.errors import InputProblem
from trainers.model.load import load_model, load_tokenizer
from trainers.run import Run
from trainers.runtime.heldout import HeldOut
from trainers.runtime.token_trainers import MaskedTrainer
from trainers.stages.prepared import Prepared

log = logging.getLogger(__name__)


class MlmTrainer(MaskedTrainer):
    """Masks the batches of a step when they are fetched."""

    masking: Masking

    def get_batch_samples(self, batches: Iterator[dict[str, torch.Tensor]], *others: Any) -> Any:
        """As transformers' own, which then counts the masked tokens of the step."""
        dice = torch.Generator()
        dice.manual_seed(hash((self.args.seed, self.state.global_step, self.args.process_index)))
        return super().get_batch_samples((self._masked(batch, dice) for batch in batches), *others)

    def _masked(self, batch: dict[str, torch.Tensor], dice: torch.Generator) -> dict[str, torch.Tensor]:
        ids, labels = self.masking(batch["input_ids"], batch["words"], dice)
        return {**batch, "input_ids": ids, "labels": labels}


def prepare(config: Mlm, run: Run, arguments: dict[str, Any], examples: Examples) -> Prepared:
    """Tokenise the text of a run, load its encoder, put them into a trainer. Raises TrainerError."""
    run.progress.update(phase="tokenizing")
    tokenizer = load_tokenizer(config.model)
    if tokenizer.mask_token_id is None:
        raise InputProblem(
            f"the tokenizer of {config.model.model_name_or_path} has no mask token",
            hint="take an encoder that was trained with masks, such as BERT or ModernBERT",
        )
    rows = prepare_rows(config, run.folder, tokenizer, examples)
    log.info("rows: %s", rows.words())
    run.progress.update(phase="loading")
    masking = Masking.of(tokenizer, config.method.mlm_probability, config.method.whole_word)
    trainer = MlmTrainer(
        model=load_model(config, "masked"),
        processing_class=tokenizer,
        train_dataset=rows.train,
        eval_dataset=_masked_once(rows.held_out, masking, config.optim.seed),
        data_collator=Padding(tokenizer.pad_token_id),
        args=TrainingArguments(**arguments, remove_unused_columns=False),
    )
    trainer.masking = masking
    trainer.remove_callback(PrinterCallback)
    measured = HeldOut(run, config.eval, rows.held_out or [])
    measured.trainer = trainer
    return Prepared(trainer, measured, rows.counts)


class Padding:
    """Pads rows to the longest of a batch."""

    def __init__(self, pad_token_id: int) -> None:
        self._fill = {"input_ids": pad_token_id, "labels": IGNORED, "words": NO_WORD}

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Tensors of shape (rows, longest) of all columns, and the attention mask."""

        def padded(values: list[list[int]], fill: int) -> torch.Tensor:
            return pad_sequence([torch.tensor(row) for row in values], batch_first=True, padding_value=fill)

        batch = {name: padded([row[name] for row in rows], self._fill[name]) for name in rows[0]}
        return {**batch, "attention_mask": padded([[1] * len(row["input_ids"]) for row in rows], 0)}


def _masked_once(rows: Dataset | None, masking: Masking, seed: int) -> Dataset | None:
    if rows is None:
        return None
    dice = torch.Generator().manual_seed(seed)
    ids, labels = [], []
    for row in rows:
        masked, wanted = masking(torch.tensor([row["input_ids"]]), torch.tensor([row["words"]]), dice)
        ids.append(masked[0].tolist())
        labels.append(wanted[0].tolist())
    return Dataset.from_dict({"input_ids": ids, "labels": labels})
