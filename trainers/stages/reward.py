"""Stage ``reward``: a model that rates answers, learnt from preferences. On TRL's RewardTrainer.

The model is a classifier with one number as its result, read at the last token of prompt and answer. It loads
again with ``AutoModelForSequenceClassification``, and stage ``grpo`` takes it as ``method.reward_model``.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from transformers import PrinterCallback, set_seed
from trl import RewardConfig, RewardTrainer
from trl.trainer.reward_trainer import suppress_seqcls_warning

from trainers.config.stages.reward import Reward
from trainers.data.answered import counts, tokenise_pairs
from trainers.data.examples import Examples
from trainers.model.load import load_model, load_tokenizer
from trainers.run import Run
from trainers.runtime.autocast import weights_cast_once
from trainers.runtime.heldout import HeldOut
from trainers.runtime.trainer import RunTrainer
from trainers.stages.prepared import Prepared

log = logging.getLogger(__name__)


class RatingTrainer(RunTrainer, RewardTrainer):
    """RewardTrainer over pairs that are tokenised already."""

    def _prepare_dataset(self, dataset: Any, *args: Any) -> Any:
        return dataset

    def count_rows(self, batch: dict[str, Any]) -> int:
        """A pair is one row."""
        return len(batch["input_ids"]) // 2

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Loss, and the mean reward, margin and accuracy under TRL's names, over all held-out pairs.

        Breaks off, and returns nothing, when the run is asked to stop. Leaves the random state as it was.
        """
        rated: list[torch.Tensor] = []
        devices = [self.args.device] if self.args.device.type == "cuda" else []
        self.model.eval()
        with torch.random.fork_rng(devices), torch.no_grad(), weights_cast_once(self):
            for inputs in self.get_eval_dataloader():
                if self.state.global_step < self.state.max_steps and self.stop.agreed():
                    return {}
                logits = self.model(**self._prepare_inputs(inputs), use_cache=False).logits.squeeze(-1).double()
                # Leaves out the pairs that fill the last batch up for the other processes.
                rated.append(self.accelerator.gather_for_metrics(torch.stack(logits.chunk(2), 1)))
                self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        chosen, rejected = torch.cat(rated).unbind(1)
        loss = -torch.nn.functional.logsigmoid(chosen - rejected).mean()
        if self.args.center_rewards_coefficient is not None:
            loss += self.args.center_rewards_coefficient * (chosen + rejected).square().mean()
        metrics = {
            "eval_loss": loss.item(),
            "eval_mean_reward": torch.cat([chosen, rejected]).mean().item(),
            "eval_margin": (chosen - rejected).mean().item(),
            "eval_accuracy": (chosen > rejected).double().mean().item(),
        }
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def prepare(config: Reward, run: Run, arguments: dict[str, Any], examples: Examples) -> Prepared:
    """Tokenise the pairs of a reward model's run, load its model, put them into a trainer. Raises TrainerError."""
    run.progress.update(phase="tokenizing")
    tokenizer = load_tokenizer(config.model)
    length = config.data.max_length
    # What is rated is a whole answer: one that was cut would be rated for its missing end.
    train = tokenise_pairs(examples.train, tokenizer, length, "training", cut=False)
    held_out = tokenise_pairs(examples.held_out, tokenizer, length, "held-out", cut=False)
    log.info("%d training pairs, %d held out", len(train.rows), len(held_out.rows))
    run.progress.update(phase="loading")
    args = RewardConfig(
        **arguments,
        max_length=None,
        center_rewards_coefficient=config.method.center_rewards_coefficient,
        disable_dropout=False,
    )
    # A language model has no such head: it is drawn at random.
    set_seed(config.optim.seed)
    with suppress_seqcls_warning():
        model = load_model(config, kind="classifier")
    trainer = RatingTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=train.rows.map(_whole),
        eval_dataset=held_out.rows.map(_whole) if len(held_out.rows) else None,
        args=args,
    )
    trainer.remove_callback(PrinterCallback)
    measured = HeldOut(run, config.eval, examples.held_out)
    measured.trainer = trainer
    return Prepared(trainer, measured, counts(train, held_out, examples.skipped))


def _whole(row: dict[str, Any]) -> dict[str, list[int]]:
    return {side: row["prompt_ids"] + row[side] for side in ("chosen_ids", "rejected_ids")}
