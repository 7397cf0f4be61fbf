"""Stage ``dpo``: direct preference optimisation and its relatives. On TRL's DPOTrainer.

What TRL's trainer does here: batches, all losses, the head in chunks without the whole logits, DDP, DeepSpeed.
What is ours: tokens (``trainers.data.answered``), a reference that is the start of the run, an evaluation that
weighs every pair alike, and the exact KL.
"""

from __future__ import annotations

import logging
from typing import Any

from transformers import PrinterCallback
from trl import DPOConfig

from trainers.config.stages.dpo import Dpo
from trainers.data.answered import counts, stored, tokenise_pairs
from trainers.data.examples import Examples
from trainers.data.kinds import Example
from trainers.model.load import load_model, load_tokenizer
from trainers.model.reference import load_reference
from trainers.run import Run
from trainers.runtime.heldout import HeldOut
from trainers.runtime.pair_trainer import PairTrainer
from trainers.runtime.referenced import check_head, keeps_copy
from trainers.runtime.reward_kl import RewardKl
from trainers.stages.prepared import Prepared

log = logging.getLogger(__name__)


def prepare(config: Dpo, run: Run, arguments: dict[str, Any], examples: Examples) -> Prepared:
    """Tokenise the pairs of a DPO run, load model and reference, put them into a trainer. Raises TrainerError."""
    method, length = config.method, config.data.max_length
    run.progress.update(phase="tokenizing")
    tokenizer = load_tokenizer(config.model)
    train = tokenise_pairs(examples.train, tokenizer, length, "training")
    held_out = tokenise_pairs(examples.held_out, tokenizer, length, "held-out")
    log.info("%d training pairs, %d held out", len(train.rows), len(held_out.rows))
    if not len(held_out.rows):
        log.warning("nothing is held out: neither the KL to the reference nor rewards on new pairs are measured")
    run.progress.update(phase="loading")
    # Before the models: DeepSpeed's ZeRO-3 shares them out while they are loaded, once it knows its arguments.
    args = DPOConfig(
        **arguments,
        max_length=None,
        beta=method.beta,
        loss_type=method.loss_type,
        loss_weights=method.loss_weights or None,
        label_smoothing=method.label_smoothing,
        precompute_ref_log_probs=method.precompute_ref_log_probs,
        disable_dropout=False,
        router_aux_loss_coef=0.0,
    )
    if method.precompute_ref_log_probs:
        train, held_out = (stored(rows, run.folder / "pairs") for rows in (train, held_out))
    model = load_model(config)
    check_head(model)
    second = config.model.adapter == "none" and not method.precompute_ref_log_probs
    trainer = PairTrainer(
        keep_copy=keeps_copy(config),
        model=model,
        ref_model=load_reference(config) if second else None,
        processing_class=tokenizer,
        train_dataset=train.rows,
        eval_dataset=held_out.rows if len(held_out.rows) else None,
        args=args,
    )
    trainer.remove_callback(PrinterCallback)
    watched = held_out.rows.select(range(min(method.kl_prompts, len(held_out.rows))))
    if len(watched):
        trainer.watch([(row["prompt_ids"], row["chosen_ids"]) for row in watched])
    measured = HeldOut(run, config.eval, [Example([*p.prompt, *p.chosen], p.origin) for p in examples.held_out])
    measured.trainer = trainer
    return Prepared(trainer, measured, counts(train, held_out, examples.skipped), [RewardKl(run.folder)])
