"""Stage ``kto``: learning from answers that are rated one by one. On TRL's KTOTrainer.

What TRL's trainer does here: batches, both losses, the head in chunks without the whole logits, DDP, DeepSpeed.
What is ours: tokens (``trainers.data.answered``), a reference that is the start of the run, rows in random order,
and an evaluation that weighs every row alike.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PrinterCallback
from trl import KTOConfig, KTOTrainer
from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference

from trainers.config.stages.kto import Kto
from trainers.data.answered import counts, tokenise_labelled
from trainers.data.examples import Examples
from trainers.data.kinds import Example
from trainers.model.load import load_model, load_tokenizer
from trainers.model.reference import load_reference
from trainers.run import Run
from trainers.runtime.autocast import weights_cast_once
from trainers.runtime.heldout import HeldOut
from trainers.runtime.referenced import Referenced, check_head, keeps_copy
from trainers.stages.prepared import Prepared

log = logging.getLogger(__name__)


@dataclass
class Mismatching(DataCollatorForUnpairedPreference):
    """TRL's batches, in which every prompt also gets the answer to the one before it.

    TRL pairs them once for all epochs, in the order of the file, and so may not shuffle the rows.
    """

    compares: bool = True

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """A padded batch."""
        if self.compares:
            others = [examples[-1], *examples[:-1]]
            pairs = zip(examples, others, strict=True)
            examples = [{**row, "KL_completion_ids": other["completion_ids"]} for row, other in pairs]
        return super().torch_call(examples)


class RatedTrainer(Referenced, KTOTrainer):
    """KTOTrainer over rows that are tokenised already."""

    def count_tokens(self, batch: dict[str, Any]) -> torch.Tensor | int:
        """Those of the answers to other prompts are work too."""
        return sum(batch[name].sum() for name in ("attention_mask", "KL_attention_mask") if name in batch)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """What TRL calls KL is the mean log-ratio of answers to other prompts, at least 0: KTO's reference point."""
        for metrics in self._metrics.values():
            if "kl" in metrics:
                metrics["reference_point"] = metrics.pop("kl")
        super().log(logs, start_time)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The loss of each batch, weighed by its rows, and TRL's rewards: means over all good and all bad rows.

        Breaks off, and returns nothing, when the run is asked to stop. Leaves the random state as it was.
        """
        sums: dict[str, float] = defaultdict(float)
        devices = [self.args.device] if self.args.device.type == "cuda" else []
        self.model.eval()
        with torch.random.fork_rng(devices), torch.no_grad(), weights_cast_once(self):
            for inputs in self.get_eval_dataloader():
                if self.state.global_step < self.state.max_steps and self.stop.agreed():
                    return {}
                for name, value in self._score(self._prepare_inputs(inputs)).items():
                    sums[name] += value
                self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        metrics = {"eval_loss": sums["loss"] / (sums["good"] + sums["bad"])}
        if sums["good"]:
            metrics["eval_rewards/chosen"] = sums["chosen"] / sums["good"]
        if sums["bad"]:
            metrics["eval_rewards/rejected"] = sums["rejected"] / sums["bad"]
        if sums["good"] and sums["bad"]:
            metrics["eval_rewards/margins"] = metrics["eval_rewards/chosen"] - metrics["eval_rewards/rejected"]
        self._metrics["eval"].clear()
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _score(self, inputs: dict[str, torch.Tensor]) -> dict[str, float]:
        """Sums over the rows of a batch of all processes."""
        then, _ = self.compute_ref_log_probs(self.ref_model or self.model, inputs)
        said: list[torch.Tensor] = []

        def listening(**words: Any) -> Any:
            out = self.model(**words)
            said.append(out.log_probs.sum(1))
            return out

        loss = self._compute_loss(listening, inputs, return_outputs=False)
        # The first call is about answers to other prompts, where there is one.
        rewards = self.beta * (said[-1] - then)
        good = inputs["label"].bool()
        rows = torch.stack([loss.expand(len(good)), rewards * good, rewards * ~good, good, ~good], dim=1)
        # Leaves out the rows that fill the last batch up for the other processes.
        total = self.accelerator.gather_for_metrics(rows).double().sum(0).tolist()
        return dict(zip(("loss", "chosen", "rejected", "good", "bad"), total, strict=True))


def prepare(config: Kto, run: Run, arguments: dict[str, Any], examples: Examples) -> Prepared:
    """Tokenise the rows of a KTO run, load model and reference, put them into a trainer. Raises TrainerError."""
    method, length = config.method, config.data.max_length
    run.progress.update(phase="tokenizing")
    tokenizer = load_tokenizer(config.model)
    train = tokenise_labelled(examples.train, tokenizer, length, "training")
    held_out = tokenise_labelled(examples.held_out, tokenizer, length, "held-out")
    good = sum(train.rows["label"])
    log.info("%d training rows, %d of them good; %d held out", len(train.rows), good, len(held_out.rows))
    run.progress.update(phase="loading")
    args = KTOConfig(
        **arguments,
        max_length=None,
        beta=method.beta,
        loss_type=method.loss_type,
        desirable_weight=method.desirable_weight,
        undesirable_weight=method.undesirable_weight,
        disable_dropout=False,
        router_aux_loss_coef=0.0,
    )
    model = load_model(config)
    check_head(model)
    trainer = RatedTrainer(
        keep_copy=keeps_copy(config),
        model=model,
        ref_model=load_reference(config) if config.model.adapter == "none" else None,
        processing_class=tokenizer,
        data_collator=Mismatching(tokenizer.pad_token_id, compares=method.loss_type == "kto"),
        train_dataset=train.rows,
        eval_dataset=held_out.rows if len(held_out.rows) else None,
        args=args,
    )
    args.train_sampling_strategy = "random"
    trainer.remove_callback(PrinterCallback)
    # Only a good answer is one to expect.
    shown = [Example([*row.prompt, *row.completion], row.origin) for row in examples.held_out if row.label]
    measured = HeldOut(run, config.eval, [*shown, *(row for row in examples.held_out if not row.label)])
    measured.trainer = trainer
    return Prepared(trainer, measured, counts(train, held_out, examples.skipped))
