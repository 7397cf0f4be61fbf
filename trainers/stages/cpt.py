"""Stage ``cpt``: continued pre-training, the next token of plain text, on TRL's SFTTrainer.

Documents are packed into blocks that are nearly full, and do not see each other there: positions begin anew with
each, from which transformers makes the mask (sdpa, eager) or the lengths (flash attention). The model is asked
before whether it does so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from transformers import PrinterCallback
from trl import SFTConfig

from trainers.config import RunConfig
from trainers.data.collate import Collator
from trainers.data.examples import Examples
from trainers.data.stream import stream
from trainers.data.tokenised import prepare_rows
from trainers.model.load import load_model, load_tokenizer
from trainers.model.packed import check_packing
from trainers.run import Run
from trainers.runtime.heldout import HeldOut
from trainers.runtime.token_trainers import CausalTrainer
from trainers.stages.prepared import Prepared

log = logging.getLogger(__name__)


def prepare(
    config: RunConfig,
    run: Run,
    arguments: dict[str, Any],
    examples: Examples,
    load: Callable[[RunConfig], Any] = load_model,
) -> Prepared:
    """Tokenise the text of a run, load its model, put them into a trainer. Raises TrainerError.

    Stages that differ from this one in which weights learn bring their own way to ``load`` the model.
    """
    run.progress.update(phase="tokenizing")
    tokenizer = load_tokenizer(config.model)
    rows = prepare_rows(config, run.folder, tokenizer, examples)
    log.info("rows: %s", rows.words())
    run.progress.update(phase="loading")
    model = load(config)
    if config.method.packing:
        check_packing(model, config)
    trainer = CausalTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=stream(config, tokenizer, examples) if rows.train is None else rows.train,
        eval_dataset=rows.held_out,
        data_collator=collator(config, tokenizer),
        args=causal_arguments(config, arguments),
    )
    trainer.remove_callback(PrinterCallback)
    measured = HeldOut(run, config.eval, rows.held_out or [])
    measured.trainer = trainer
    return Prepared(trainer, measured, rows.counts)


def collator(config: RunConfig, tokenizer: Any) -> Collator:
    """The collator of a causal stage."""
    return Collator(tokenizer.pad_token_id, flat=config.model.attn_implementation == "flash_attention_2")


def causal_arguments(config: RunConfig, arguments: dict[str, Any], **more: Any) -> SFTConfig:
    """The arguments of a CausalTrainer: TRL is to leave rows alone that are tokenised and packed already."""
    return SFTConfig(
        **arguments,
        **more,
        max_length=config.data.max_length,
        packing=False,
        shuffle_dataset=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        loss_type="nll",
        router_aux_loss_coef=0.0,
    )
