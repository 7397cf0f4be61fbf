"""Stage ``sft``: supervised fine-tuning, loss on the assistant's words only. On TRL's SFTTrainer.

What TRL's trainer does here: batches, accumulation, optimizer, schedule, precision, DDP, DeepSpeed, the fused
head on GPUs. What is ours: tokens and labels (``trainers.data``), the loss over answers alone on a CPU, and
an evaluation that weighs tokens, not batches.
"""

from __future__ import annotations

import logging
from typing import Any

from transformers import PrinterCallback

from trainers.config.stages.sft import Sft
from trainers.data.examples import Examples
from trainers.data.template import ChatTemplate
from trainers.data.tokenised import prepare_rows
from trainers.model.generate import end_answers_with
from trainers.model.load import load_model, load_tokenizer
from trainers.model.packed import check_packing
from trainers.run import Run
from trainers.runtime.heldout import HeldOut
from trainers.runtime.token_trainers import CausalTrainer
from trainers.stages.cpt import causal_arguments, collator
from trainers.stages.prepared import Prepared

log = logging.getLogger(__name__)


class AnswerTrainer(CausalTrainer):
    """Held-out rows are conversations: an answer is right when all of its tokens are."""

    whole_rows = True


def prepare(config: Sft, run: Run, arguments: dict[str, Any], examples: Examples) -> Prepared:
    """Tokenise the data of an SFT run, load its model, put them into a trainer. Raises TrainerError."""
    run.progress.update(phase="tokenizing")
    tokenizer = load_tokenizer(config.model)
    rows = prepare_rows(config, run.folder, tokenizer, examples)
    log.info("rows: %s", rows.words())
    run.progress.update(phase="loading")
    model = load_model(config)
    end_answers_with(model, tokenizer, ChatTemplate(tokenizer).end)
    if config.method.packing:
        check_packing(model, config)
    trainer = AnswerTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=rows.train,
        eval_dataset=rows.held_out,
        data_collator=collator(config, tokenizer),
        args=causal_arguments(config, arguments, neftune_noise_alpha=config.method.neftune_noise_alpha),
    )
    trainer.remove_callback(PrinterCallback)
    measured = HeldOut(run, config.eval, examples.held_out)
    measured.trainer = trainer
    return Prepared(trainer, measured, rows.counts)
