"""The trainers of all stages that learn to guess tokens: every token counts the same, wherever it stands."""

from __future__ import annotations

import math
from typing import Any

import torch
from transformers import Trainer
from trl import SFTTrainer

from trainers.model.likelihood import Likelihood
from trainers.runtime.autocast import weights_cast_once
from trainers.runtime.trainer import RunTrainer


class TokenTrainer(RunTrainer):
    """A RunTrainer whose loss is the mean over all labelled tokens of a step, and whose evaluation weighs tokens,
    not batches."""

    ahead = 1
    """How far a label lies ahead of the token that guesses it."""
    whole_rows = False
    """Whether evaluation also counts the rows of which every labelled token is the model's first choice."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.likelihood = Likelihood(self.model, ahead=self.ahead)
        # Whatever the model says of its own loss: only then the Trainer counts the labels of all batches of a step.
        self.model_accepts_loss_kwargs = True
        self._loss_shifts_labels = self.ahead == 1

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Mean over the labelled tokens of the whole step, over all processes and accumulated batches.

        TRL's own also gathers entropy and token accuracy in every batch, which costs time.
        """
        nll, mask, _ = self.likelihood.score(model, inputs)
        if num_items_in_batch is None:
            return nll.sum() / mask.sum().clamp(min=1)
        # DDP averages the gradients of the processes, but the count is that of all of them.
        return nll.sum() / num_items_in_batch * self.accelerator.num_processes

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Loss and perplexity per token, and the share of whole rows where these are counted.

        Breaks off, and returns nothing, when the run is asked to stop. Leaves the random state as it was.
        """
        totals = torch.zeros(4, dtype=torch.float64, device=self.args.device)
        devices = [self.args.device] if self.args.device.type == "cuda" else []
        self.model.eval()
        # Where nothing was left to train, nobody has told the model its number format yet.
        with torch.random.fork_rng(devices), torch.no_grad(), weights_cast_once(self):
            for inputs in self.get_eval_dataloader():
                if self.state.global_step < self.state.max_steps and self.stop.agreed():
                    return {}
                nll, mask, hits = self.likelihood.score(self.model, inputs, hits=self.whole_rows)
                whole = (hits | ~mask).all(1) if hits is not None else torch.zeros_like(mask[:, 0])
                rows = torch.stack([nll.sum(1).double(), mask.sum(1), whole, torch.ones_like(whole)], dim=1)
                # Leaves out the rows that fill the last batch up for the other processes.
                totals += self.accelerator.gather_for_metrics(rows).sum(0)
                self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        nll_sum, tokens, right, count = totals.tolist()
        loss = nll_sum / max(tokens, 1)
        metrics = {"eval_loss": loss, "eval_perplexity": math.exp(min(loss, 700.0))}
        if self.whole_rows:
            metrics["eval_answer_accuracy"] = right / count
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


class CausalTrainer(TokenTrainer, SFTTrainer):
    """SFTTrainer over rows that are tokenised and labelled already."""

    one_pass = True


class MaskedTrainer(TokenTrainer, Trainer):
    """transformers' Trainer of an encoder."""

    ahead = 0
