"""What happens at step boundaries: tripwires, the wish to stop, progress and metrics for others to read."""

from __future__ import annotations

import logging
import math
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from transformers import TrainerCallback

from trainers.errors import RunProblem
from trainers.runtime.files import append_line
from trainers.runtime.meter import Meter
from trainers.runtime.progress import Progress
from trainers.runtime.stopping import Stop

log = logging.getLogger(__name__)

SHOWN = (
    "loss", "reward", "eval_loss", "eval_perplexity", "eval_answer_accuracy", "eval_reward", "learning_rate",
    "grad_norm",
    "rewards/margins", "rewards/accuracies", "eval_rewards/margins", "eval_rewards/accuracies", "eval_kl",
    "margin", "accuracy", "eval_margin", "eval_accuracy",
)  # fmt: skip

EQUAL_STEPS = 10
"""So many first steps in which all answers to each prompt got the same reward end a run: nothing compares."""


class Tripwires(TrainerCallback):
    """Stops a run that cannot learn before it costs hours: nothing trainable, no gradient, loss not finite."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._felt_gradient = False
        self._equal = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """At least one weight must learn."""
        check_trainable(kwargs["model"])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The loss of this step must be finite, on every process, and the first gradient not zero."""
        loss, norm = float(self._meter.step_loss), self._meter.grad_norm
        # An fp16 run finds its scale by overflowing gradients: only the loss says that something is wrong.
        lost = not math.isfinite(loss) or (not args.fp16 and norm is not None and not math.isfinite(norm))
        if _any_process(lost):
            raise RunProblem(
                f"step {state.global_step}: loss {loss:g}, gradient norm {norm}: the run has diverged",
                hint="lower optim.learning_rate, raise optim.warmup_steps, or lower optim.max_grad_norm; "
                "resuming starts before this step",
            )
        if not self._felt_gradient and self._meter.equal_rewards:
            self._count_equal(state.global_step)
            return
        if not self._felt_gradient and norm == 0.0:
            raise RunProblem(
                f"step {state.global_step}: the gradient is zero: this run would train nothing",
                hint="is there an answer within data.max_length, and does the adapter take part in the model?",
            )
        self._felt_gradient = True

    def _count_equal(self, step: int) -> None:
        """A step without a gradient is usual where answers are compared, a whole beginning of them is not."""
        self._equal += 1
        if self._equal == 1:
            log.warning(
                "step %d: all answers to each prompt got the same reward or none, so nothing was learned from it", step
            )
        # A resumed run may have learned already all that there is.
        if self._equal == step == EQUAL_STEPS:
            raise RunProblem(
                f"in the first {EQUAL_STEPS} steps all answers to each prompt got the same reward or none: nothing can "
                "be learned",
                hint="can a reward function tell good from bad on this model's answers? see reward and completions "
                "in metrics.jsonl; more num_generations or a higher temperature give more to compare",
            )


def check_trainable(model: torch.nn.Module) -> None:
    """Raise RunProblem when no weight of the model learns."""
    if not any(weight.requires_grad for weight in model.parameters()):
        raise RunProblem("no weight of this model is trainable", hint="check model.adapter and model.lora")


def _any_process(flag: bool) -> bool:
    if not (dist.is_initialized() and dist.get_world_size() > 1):
        return flag
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    shared = torch.tensor(int(flag), device=device)
    dist.all_reduce(shared, op=dist.ReduceOp.MAX)
    return bool(shared.item())


class StopAtStep(TrainerCallback):
    """Saves and ends training at the step boundary after somebody asked for it. Then ``saved`` is True."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        self.saved = False

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """At the last step there is nothing to continue: the run just finishes."""
        if self._stop.agreed() and state.global_step < state.max_steps:
            log.info("asked to stop: saving at step %d", state.global_step)
            control.should_log = control.should_save = control.should_training_stop = True
            self.saved = True


class Reporter(TrainerCallback):
    """Keeps ``progress.json`` and ``metrics.jsonl`` current, and writes a line to the log."""

    def __init__(self, run_dir: Path, attempt: int, progress: Progress, meter: Meter) -> None:
        self._metrics = run_dir / "metrics.jsonl"
        self._attempt = attempt
        self._progress = progress
        self._meter = meter
        self.result = False
        """Whether what is measured now is the result, which need not be the weights of the last step."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The number of steps is known from here on."""
        self._meter.restart_clock()
        self._progress.update(phase="training", step=state.global_step, max_steps=state.max_steps)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A step is done; say at once what comes next if it takes long."""
        self._meter.step_done()
        # The last numbers count most, also when they fall between two log lines.
        control.should_log |= state.global_step >= state.max_steps
        phase = "evaluating" if control.should_evaluate else "saving" if control.should_save else "training"
        self._progress.update(phase=phase, step=state.global_step)

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Still alive: a step of many accumulated batches may take minutes."""
        self._progress.update()

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Still alive, evaluating."""
        self._progress.update()

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Back from evaluation."""
        self._meter.restart_clock()
        self._progress.update(phase="saving" if control.should_save else "training")

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Back from saving."""
        self._meter.restart_clock()
        self._progress.update(phase="training")

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Write a metrics line. The closing summary of the Trainer is none."""
        if not state.is_world_process_zero or not logs or not any(n == "loss" or n.startswith("eval_") for n in logs):
            return
        speed = {k: logs[k] for k in ("loss", "tokens_per_second", "seconds_per_step", "peak_memory") if k in logs}
        self._progress.update(**speed)
        # JSON has no infinity, which is a usual gradient norm while an fp16 run finds its scale.
        finite = {name: value if math.isfinite(value) else None for name, value in logs.items()}
        head = {"schema": 1, "attempt": self._attempt, "step": state.global_step, "time": time.time()}
        append_line(self._metrics, head | ({"result": True} if self.result else {}) | finite)
        words = [f"{name} {logs[name]:.4g}" for name in SHOWN if name in logs]
        if "tokens_per_second" in logs:
            words.append(f"{logs['tokens_per_second']:.0f} tokens/s")
        log.info("step %d/%d  %s", state.global_step, state.max_steps, "  ".join(words))
