"""Stage ``sft``: supervised fine-tuning, loss on the assistant's words only. On TRL's SFTTrainer.

What TRL's trainer does here: batches, accumulation, optimizer, schedule, precision, DDP, DeepSpeed, the fused
head on GPUs. What is ours: tokens and labels (``trainers.data``), the loss over answers alone on a CPU, and
an evaluation that weighs tokens, not batches.
"""

from __future__ import annotations

import logging
import math
from typing import Any

import torch
from transformers import PrinterCallback
from trl import SFTConfig, SFTTrainer

from trainers.config import Sft
from trainers.data.dataset import tokenise
from trainers.data.examples import Examples
from trainers.model.answers import Answers
from trainers.model.load import load_model, load_tokenizer
from trainers.run import Run
from trainers.runtime.heldout import HeldOut
from trainers.runtime.trainer import RunTrainer
from trainers.stages.prepared import Prepared

log = logging.getLogger(__name__)


class AnswerTrainer(RunTrainer, SFTTrainer):
    """SFTTrainer over rows that are tokenised and labelled already."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.answers = Answers(self.model)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Mean over the answer tokens of the whole step, over all processes and accumulated batches.

        TRL's own also gathers entropy and token accuracy in every batch, which costs time.
        """
        nll, mask, _ = self.answers.score(model, inputs)
        if num_items_in_batch is None:
            return nll.sum() / mask.sum().clamp(min=1)
        # DDP averages the gradients of the processes, but the count is that of all of them.
        return nll.sum() / num_items_in_batch * self.accelerator.num_processes

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Loss and perplexity per token, and the share of rows whose whole answer is the model's first choice.

        Breaks off, and returns nothing, when the run is asked to stop. Leaves the random state as it was.
        """
        totals = torch.zeros(4, dtype=torch.float64, device=self.args.device)
        devices = [self.args.device] if self.args.device.type == "cuda" else []
        self.model.eval()
        with torch.random.fork_rng(devices), torch.no_grad():
            for inputs in self.get_eval_dataloader():
                if self.state.global_step < self.state.max_steps and self.stop.agreed():
                    return {}
                nll, mask, hits = self.answers.score(self.model, inputs, hits=True)
                whole = (hits | ~mask).all(1)
                rows = torch.stack([nll.sum(1).double(), mask.sum(1), whole, torch.ones_like(whole)], dim=1)
                # Leaves out the rows that fill the last batch up for the other processes.
                totals += self.accelerator.gather_for_metrics(rows).sum(0)
                self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        nll_sum, tokens, right, count = totals.tolist()
        metrics = {
            "eval_loss": nll_sum / tokens,
            "eval_perplexity": math.exp(min(nll_sum / tokens, 700.0)),
            "eval_answer_accuracy": right / count,
        }
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def prepare(config: Sft, run: Run, arguments: dict[str, Any], examples: Examples) -> Prepared:
    """Tokenise the data of an SFT run, load its model, put them into a trainer. Raises TrainerError."""
    run.progress.update(phase="tokenizing")
    tokenizer = load_tokenizer(config.model)
    length = config.data.max_length
    train_rows = tokenise(examples.train, tokenizer, length, "training")
    eval_rows = tokenise(examples.held_out, tokenizer, length, "held-out") if examples.held_out else None
    log.info("%d training rows, %d held out", len(train_rows.rows), len(eval_rows.rows) if eval_rows else 0)
    run.progress.update(phase="loading")
    trainer = AnswerTrainer(
        model=load_model(config),
        processing_class=tokenizer,
        train_dataset=train_rows.rows,
        eval_dataset=eval_rows.rows if eval_rows else None,
        args=SFTConfig(
            **arguments,
            max_length=length,
            packing=False,
            shuffle_dataset=False,
            dataset_kwargs={"skip_prepare_dataset": True},
            loss_type="nll",
            router_aux_loss_coef=0.0,
        ),
    )
    measured = HeldOut(run, config.eval, examples.held_out)
    measured.trainer = trainer
    trainer.remove_callback(PrinterCallback)
    counts = {
        "training": len(train_rows.rows),
        "held_out": len(eval_rows.rows) if eval_rows else 0,
        "truncated": train_rows.truncated,
        "dropped": train_rows.dropped,
    }
    return Prepared(trainer, measured, counts)
