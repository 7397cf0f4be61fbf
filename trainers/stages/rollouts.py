"""What the stages share that train on answers of the model's own: prompts, rewards, reference, evaluation.

TRL generates, compares the rewards of a group and computes the loss. Ours are the columns that a reward function
gets (as they were in the file), the reference (the start of this stage, as the run loads it), and an evaluation
that weighs every held-out prompt alike.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback
from trl.models import prepare_deepspeed, prepare_fsdp
from trl.trainer.utils import add_fused_lm_head

from trainers.data.examples import Examples
from trainers.data.kinds import Example, Prompt
from trainers.data.rows import BadRow
from trainers.data.template import ChatTemplate
from trainers.errors import InputProblem, RunProblem
from trainers.model.generate import end_answers_with
from trainers.model.load import load_model, load_tokenizer
from trainers.model.reference import load_reference
from trainers.rewards.load import BadReward, load_rewards
from trainers.rewards.text import EXPECTED
from trainers.run import Run
from trainers.runtime.heldout import HeldOut
from trainers.runtime.trainer import RunTrainer
from trainers.stages.prepared import Prepared

log = logging.getLogger(__name__)


class RolloutTrainer(RunTrainer):
    """A mixin in front of TRL's GRPOTrainer or RLOOTrainer. Rows are ``prompt`` and the number of the prompt."""

    def bind(self, prompts: Sequence[Prompt]) -> None:
        """Give the trainer the prompts that its rows count; before ``train``."""
        self.prompts = prompts

    def refer_to(self, reference: Any, beta: float) -> None:
        """Measure the KL to ``reference``; None: to the model without its adapter, which has to be a new one.

        TRL would load the reference by the model's name: another revision, positions that this run changed,
        and nothing of an adapter that was trained before.
        """
        self.beta = beta
        if reference is None:
            return
        add_fused_lm_head(getattr(reference, "get_base_model", lambda: reference)(), temperature=self.temperature)
        if self.is_deepspeed_enabled:
            self.ref_model = prepare_deepspeed(reference, self.accelerator)
        elif self.is_fsdp_enabled:
            self.ref_model = prepare_fsdp(reference, self.accelerator)
        else:
            self.ref_model = self.accelerator.prepare_model(reference, evaluation_mode=True)

    def count_steps(self) -> None:
        """Said in prompts, when they are read."""
        return

    def count_rows(self, batch: Any) -> int:
        """Answers. A batch brings the prompts of a whole step, and is a share of it."""
        return len(batch) // self.args.steps_per_generation

    def count_tokens(self, batch: Any) -> int:
        """None yet: they are counted when they are there."""
        return 0

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Count the tokens of prompts and answers; the loss is TRL's."""
        self.meter.tokens += inputs["prompt_mask"].sum() + inputs["completion_mask"].sum()
        return super().compute_loss(model, inputs, *args, **kwargs)  # type: ignore[misc]

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        batch = super()._generate_and_score_completions(inputs)  # type: ignore[misc]
        # The share does not count prompts without a rating, which teach nothing either.
        push = self.accelerator.gather(batch["advantages"].abs().sum().reshape(1)).sum()
        self.meter.equal_rewards = self._metrics["train"]["frac_reward_zero_std"][-1] == 1.0 or push == 0
        return batch  # type: ignore[no-any-return]

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)  # type: ignore[misc]
        if self.num_iterations > 1:
            torch.save({"step": self._step, "answers": self._buffered_inputs}, self._answers(output_dir))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint)  # type: ignore[misc]
        # TRL would generate again, and from then on out of step with the prompts.
        if checkpoint and self._answers(checkpoint).is_file():
            kept = torch.load(self._answers(checkpoint), map_location=self.args.device, weights_only=True)
            self._step, self._buffered_inputs = kept["step"], kept["answers"]

    def _answers(self, checkpoint: str) -> Path:
        """Where this process keeps the answers on which it has more steps to take (``method.num_iterations``)."""
        return Path(checkpoint) / f"answers_{self.args.process_index}.pt"

    def _calculate_rewards(self, inputs: list[dict[str, Any]], *args: Any) -> torch.Tensor:
        """Hand the functions the columns as they were in the file: a table would have made one type of each."""
        chosen = [self.prompts[row["number"]] for row in inputs]
        names = dict.fromkeys(name for prompt in chosen for name in prompt.columns)
        rows = [{name: prompt.columns.get(name) for name in names} for prompt in chosen]
        try:
            return super()._calculate_rewards(rows, *args)  # type: ignore[misc, no-any-return]
        except BadReward as e:
            at = "" if e.index is None else f", answer to {chosen[e.index].origin}"
            raise RunProblem(
                f"reward function failed at step {self.state.global_step + 1}{at}: {e}",
                hint="correct the function and resume the run; it may return None where it has no opinion",
            ) from None

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Name the KL for what it is: an estimate from the sampled answers, a mean over their tokens.

        What no function has rated since the last time has no mean, which TRL would log as None: it is left out.
        """
        for metrics in self._metrics.values():
            for name in [name for name, values in metrics.items() if all(map(math.isnan, values))]:
                del metrics[name]
        values = self._metrics["train"].pop("kl", None)
        if values:
            self._metrics["train"]["kl_per_token"] = values
        super().log(logs, start_time)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Mean reward over the held-out prompts, one sampled answer to each, the same dice every time.

        Breaks off, and returns nothing, when the run is asked to stop. Leaves the random state as it was.
        """
        parts = []
        devices = [self.args.device] if self.args.device.type == "cuda" else []
        self.model.eval()
        with torch.random.fork_rng(devices), torch.no_grad():
            torch.manual_seed(self.args.seed + self.args.process_index)
            for inputs in self.get_eval_dataloader():
                if self.state.global_step < self.state.max_steps and self.stop.agreed():
                    return {}
                parts.append(self._rate(inputs))
                self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        # The last batch is filled up for the other processes.
        rated = torch.cat(parts)[: len(self.eval_dataset)]
        metrics = {f"eval_{name}": value for name, value in self._means(rated).items()}
        self._metrics["eval"].clear()
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _rate(self, inputs: list[dict[str, Any]]) -> torch.Tensor:
        """One row for each answer of all processes: its length in tokens, whether it was cut, its rewards."""
        prompts = [row["prompt"] for row in inputs]
        # What else comes back differs between TRL's two trainers.
        tokens = self._generate(prompts)[1]
        texts = self.processing_class.batch_decode(tokens, skip_special_tokens=True)
        completions = [[{"role": "assistant", "content": text}] for text in texts]
        rewards = self._calculate_rewards(inputs, prompts, completions, tokens)
        ends = {*self.eos_token_ids, self.processing_class.pad_token_id}
        facts = [[len(ids), ids[-1] not in ends] for ids in tokens]
        mine = torch.tensor(facts, dtype=torch.float32, device=self.args.device)
        return torch.cat([self.accelerator.gather(mine), rewards], dim=1)

    def _means(self, rated: torch.Tensor) -> dict[str, float]:
        lengths, cut, rewards = rated[:, 0], rated[:, 1], rated[:, 2:]
        # A function without an opinion says NaN; an answer on which all are silent does not count.
        heard = ~rewards.isnan().all(1)
        total = (rewards * self.reward_weights.to(rewards.device)).nansum(1)[heard]
        each = zip(self.reward_func_names, rewards.T, strict=True)
        named = {"reward": total, **{f"rewards/{name}": values for name, values in each}}
        named |= {"completion_length": lengths, "clipped_ratio": cut}
        return {name: float(values.nanmean()) for name, values in named.items() if not values.isnan().all()}


def prepare_rollouts(
    config: Any, run: Run, arguments: dict[str, Any], examples: Examples, kinds: tuple[Any, Any], own: dict[str, Any]
) -> Prepared:
    """Everything that grpo and rloo do alike.

    Args:
        kinds: the trainer and its class of arguments.
        own: arguments that only this stage has.

    Raises:
        TrainerError: before the model is loaded wherever it can be known.
    """
    kind, arguments_kind = kinds
    method = config.method
    check_vllm(method.use_vllm, arguments["use_cpu"])
    rewards: list[Any] = list(load_rewards(method.reward_functions, examples.train))
    run.progress.update(phase="tokenizing")
    tokenizer = load_tokenizer(config.model)
    template = ChatTemplate(tokenizer)
    train = _short_enough(examples.train, tokenizer, template, config.data.max_length)
    held_out = _short_enough(examples.held_out, tokenizer, template, config.data.max_length)
    group = method.num_generations
    needed = arguments["per_device_train_batch_size"] * arguments["gradient_accumulation_steps"]
    needed = needed * config.parallel.world_size // group
    check_enough(len(train), len(examples.train), needed, config.data.max_length)
    log.info(
        "%d prompts, %d in each step with %d answers to each; %d held out", len(train), needed, group, len(held_out)
    )
    run.progress.update(phase="loading")
    tokenizers: list[Any] = [None] * len(rewards)
    if method.reward_model:
        from trainers.rewards.classifier import load_reward_model

        model, own_tokenizer = load_reward_model(config)
        rewards.append(model)
        tokenizers.append(own_tokenizer)
    model = load_model(config)
    end_answers_with(model, tokenizer, template.end)
    trainer = kind(
        model=model,
        reward_funcs=rewards,
        reward_processing_classes=tokenizers,
        processing_class=tokenizer,
        train_dataset=_table(train, 0),
        eval_dataset=_table(held_out, len(train)) if held_out else None,
        args=arguments_kind(
            **arguments,
            # The reference is ours, see refer_to.
            beta=0.0,
            num_generations=group,
            num_generations_eval=1,
            max_completion_length=method.max_completion_length,
            temperature=method.temperature,
            top_p=method.top_p,
            reward_weights=method.reward_weights or None,
            num_iterations=method.num_iterations,
            epsilon=method.epsilon,
            use_vllm=method.use_vllm,
            vllm_mode="colocate",
            shuffle_dataset=True,
            remove_unused_columns=False,
            mask_truncated_completions=False,
            disable_dropout=False,
            router_aux_loss_coef=0.0,
            pad_to_multiple_of=None,
            log_completions=False,
            **own,
        ),
    )
    trainer.bind([*train, *held_out])
    if method.beta:
        fresh = config.model.adapter == "lora" and not config.model.adapter_name_or_path
        trainer.refer_to(None if fresh else load_reference(config), method.beta)
    measured = HeldOut(run, config.eval, [_question(prompt) for prompt in held_out])
    measured.trainer = trainer
    trainer.remove_callback(PrinterCallback)
    dropped = len(examples.train) - len(train)
    return Prepared(trainer, measured, {"training": len(train), "held_out": len(held_out), "dropped": dropped})


def check_vllm(wanted: bool, on_cpu: bool) -> None:
    """Raise InputProblem when vLLM is to generate and cannot."""
    if wanted and on_cpu:
        raise InputProblem("method.use_vllm needs a GPU", hint="set method.use_vllm to false, or take a GPU profile")
    if wanted and not find_spec("vllm"):
        raise InputProblem(
            "method.use_vllm: vLLM is not installed", hint="pip install vllm, or set method.use_vllm to false"
        )


def check_enough(prompts: int, rows: int, needed: int, max_length: int) -> None:
    """Raise InputProblem when the prompts do not fill one step: TRL would train for no step at all."""
    if prompts >= needed:
        return
    long = f", {rows - prompts} longer than data.max_length {max_length} left out" if rows > prompts else ""
    raise InputProblem(
        f"a step takes {needed} prompts and there are {prompts}{long}",
        hint="add rows, raise method.num_generations or lower optim.gradient_accumulation_steps",
    )


def _short_enough(prompts: Sequence[Prompt], tokenizer: Any, template: ChatTemplate, longest: int) -> list[Prompt]:
    """The prompts of at most ``longest`` tokens: a question without its end is another question."""
    kept, why = [], Counter[str]()
    for prompt in prompts:
        try:
            count = len(tokenizer(template.text(prompt.prompt, ask=True), add_special_tokens=False)["input_ids"])
        except BadRow as e:
            raise InputProblem(f"{prompt.origin}: {e}", hint="correct or delete this row") from None
        if count <= longest:
            kept.append(prompt)
        else:
            why["long"] += 1
    if why:
        log.warning("%d of %d prompts are longer than data.max_length and left out", why["long"], len(prompts))
    return kept


def _table(prompts: Sequence[Prompt], first: int) -> Dataset:
    return Dataset.from_list([{"prompt": p.prompt, "number": n} for n, p in enumerate(prompts, start=first)])


def _question(prompt: Prompt) -> Example:
    """The prompt with the expected answer, where a column holds one, to be answered in words."""
    answer = next((prompt.columns[name] for name in EXPECTED if prompt.columns.get(name) is not None), "")
    return Example([*prompt.prompt, {"role": "assistant", "content": str(answer)}], prompt.origin)
