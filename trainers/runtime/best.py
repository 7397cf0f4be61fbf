"""The best checkpoint by a held-out metric, and the end of a run that no longer gets better.

What is best is read from ``metrics.jsonl``, not kept: so it is right after any resume, and after the run
directory was moved (the Trainer's own state holds an absolute path).
"""

from __future__ import annotations

import logging
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from trainers.config import Eval
from trainers.errors import InputProblem
from trainers.runtime.best_step import BestSoFar, best_so_far

log = logging.getLogger(__name__)


class Best(TrainerCallback):
    """Asks for a checkpoint at every new best; ends training after ``early_stopping_patience`` evaluations
    without one. Step 0 does not count: nothing was trained."""

    def __init__(self, config: Eval, run_dir: Path) -> None:
        self.metric = config.metric_for_best_model
        self._config = config
        self._run_dir = run_dir
        self._best = BestSoFar(config.greater_is_better, config.early_stopping_threshold)
        self._training = False

    @property
    def step(self) -> int | None:
        """The best step; None before the first evaluation."""
        return self._best.step

    def recall(self, step: int) -> None:
        """Look up what earlier attempts found until this step."""
        self._best = best_so_far(self._run_dir, self._config, step)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """From here on evaluations count."""
        self.recall(state.global_step)
        self._training = True

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """What is measured now is the result."""
        self._training = False

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The last weights may be the best: they are measured before it is decided."""
        if self.metric and state.global_step >= state.max_steps and args.eval_strategy != "no":
            control.should_evaluate = True
        # What is measured now may end the run: the numbers of the steps before it count.
        if self._config.early_stopping_patience and control.should_evaluate:
            control.should_log = True

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, float] | None = None, **kwargs: Any
    ) -> None:
        """Compare, and decide what follows. All processes have the same numbers."""
        name = self.metric
        if not name or metrics is None or not self._training:
            return
        if name not in metrics:
            near = get_close_matches(name, metrics, n=1)
            raise InputProblem(
                f"eval.metric_for_best_model: there is no metric {name}",
                hint=f"{f'did you mean {near[0]}? ' if near else ''}measured are {', '.join(sorted(metrics))}",
            )
        if state.global_step == 0:
            return
        if self._best.take(state.global_step, metrics[name]):
            control.should_save = True
        elif self.exhausted(state.global_step):
            log.info(
                "early stopping at step %d: %s was best at step %d (%.6g)",
                state.global_step,
                name,
                self.step,
                self._best.value,
            )
            control.should_save = control.should_training_stop = True

    def exhausted(self, step: int) -> bool:
        """Whether patience is at its end at this step."""
        patience, every = self._config.early_stopping_patience, self._config.eval_steps
        return bool(patience and every and self.step is not None and step - self.step >= patience * every)
