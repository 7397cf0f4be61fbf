"""Stage dpo's trainer: every pair weighs alike in an evaluation, and the KL to the reference is exact."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import torch
from accelerate.utils import is_peft_model
from trl import DPOTrainer
from trl.trainer.utils import use_adapter

from trainers.model.divergence import Divergence, Text
from trainers.runtime.autocast import weights_cast_once
from trainers.runtime.referenced import COPY, Referenced


class PairTrainer(Referenced, DPOTrainer):
    """DPOTrainer over pairs that are tokenised already."""

    divergence: Divergence | None = None

    def _precompute_ref_logps(self, *args: Any) -> Any:
        self.settle()
        # Dropout in training is the same whether the scores were found or made.
        with torch.random.fork_rng([]):
            return super()._precompute_ref_logps(*args)

    def watch(self, texts: list[Text]) -> None:
        """Measure the KL on these texts with every evaluation from now on. Raises InputProblem."""
        vocabulary = self.model.config.get_text_config().vocab_size
        place = self.args.device, self.args.process_index, self.args.world_size
        self.divergence = Divergence(texts, vocabulary, *place)
        if self.ref_model is None and not is_peft_model(self.model):
            # The model still is the start. DeepSpeed has put it where it can be used.
            self.model.eval()
            with weights_cast_once(self):
                self.divergence.remember(self._precompute_engine or self.model)

    def count_rows(self, batch: dict[str, Any]) -> int:
        """A pair is one row."""
        return len(batch["input_ids"]) // 2

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The loss, TRL's rewards (beta times the log-ratio to the reference) and the KL, over all held-out pairs.

        Breaks off, and returns nothing, when the run is asked to stop. Leaves the random state as it was.
        """
        scored: list[torch.Tensor] = []
        devices = [self.args.device] if self.args.device.type == "cuda" else []
        self.model.eval()
        with torch.random.fork_rng(devices), torch.no_grad(), weights_cast_once(self):
            for inputs in self.get_eval_dataloader():
                if self.state.global_step < self.state.max_steps and self.stop.agreed():
                    return {}
                scored.append(self._score(self._prepare_inputs(inputs)))
                self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
            kl = self._kl()
        loss, chosen, rejected = torch.cat(scored).double().unbind(1)
        metrics = {
            "eval_loss": loss.mean().item(),
            "eval_rewards/chosen": chosen.mean().item(),
            "eval_rewards/rejected": rejected.mean().item(),
            "eval_rewards/margins": (chosen - rejected).mean().item(),
            "eval_rewards/accuracies": (chosen > rejected).double().mean().item(),
            **({} if kl is None else {"eval_kl": kl}),
        }
        # TRL's own are means over batches.
        self._metrics["eval"].clear()
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _score(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Loss, chosen and rejected reward of the pairs of a batch of all processes, shape (pairs, 3)."""
        mask = inputs["completion_mask"]
        labels = inputs["input_ids"].masked_fill(mask == 0, -100)
        words = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"], "use_cache": False}
        said = self.model(**words, labels=labels, fused_lm_head=True).log_probs
        if self.precompute_ref_logps:
            before = inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]
        else:
            before = self.compute_ref_log_probs(self.ref_model or self.model, inputs)
        # Leaves out the pairs that fill the last batch up for the other processes, so the loss is taken here.
        share = [torch.stack(sides.chunk(2), 1) for sides in (said, mask)]
        gather = self.accelerator.gather_for_metrics
        said, mask = (gather(self.accelerator.pad_across_processes(part, dim=2)) for part in share)
        said, mask = said.transpose(0, 1).flatten(0, 1), mask.transpose(0, 1).flatten(0, 1)
        before = [gather(logps) for logps in before]
        loss = self._loss_of(said, mask, *before)
        chosen, rejected = said.sum(1).chunk(2)
        rewards = [self.beta * (now - then) for now, then in zip((chosen, rejected), before, strict=True)]
        return torch.stack([loss.expand(len(chosen)), *rewards], dim=1)

    def _loss_of(self, said: torch.Tensor, mask: torch.Tensor, chosen: torch.Tensor, rejected: torch.Tensor) -> Any:
        """TRL's loss of log-probabilities that are known already."""
        unused = torch.zeros_like(said)
        known = SimpleNamespace(log_probs=said, entropy=unused, mean_logits=unused, is_top1=unused.bool())
        batch = {"input_ids": mask, "attention_mask": mask, "completion_mask": mask}
        given, self.precompute_ref_logps = self.precompute_ref_logps, True
        try:
            references = {"ref_chosen_logps": chosen, "ref_rejected_logps": rejected}
            return self._compute_loss(lambda **_: known, {**batch, **references}, return_outputs=False)
        finally:
            self.precompute_ref_logps = given

    def _kl(self) -> float | None:
        if self.divergence is None:
            return None
        model = self.accelerator.unwrap_model(self.model)
        adapter = COPY if COPY in getattr(model, "peft_config", {}) else None

        def switched() -> Any:
            return nullcontext() if self.ref_model is not None else use_adapter(model, adapter)

        reference = self.ref_model if self.ref_model is not None else model
        return self.divergence.measure(model, reference, switched, lambda sums: self.accelerator.reduce(sums, "sum"))
