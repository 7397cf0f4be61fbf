"""Which step was best by a held-out metric. Without torch: the trainer asks it, and whoever removes checkpoints."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from trainers.config import Eval
from trainers.runtime.records import history


@dataclass
class BestSoFar:
    """The best step among those it was told of; None before the first."""

    greater_is_better: bool
    threshold: float
    step: int | None = None
    value: float = 0.0

    def take(self, step: int, value: float | None) -> bool:
        """Whether this is a new best: better by more than the threshold, and a finite number."""
        if value is None or not math.isfinite(value):
            return False
        gain = value - self.value if self.greater_is_better else self.value - value
        if self.step is not None and not gain > self.threshold:
            return False
        self.step, self.value = step, value
        return True


def best_so_far(run_dir: Path, config: Eval, until: float = math.inf) -> BestSoFar:
    """What ``metrics.jsonl`` says was best until this step. What was measured after training does not count."""
    best = BestSoFar(config.greater_is_better, config.early_stopping_threshold)
    for line in history(run_dir):
        if config.metric_for_best_model and 0 < line["step"] <= until and not line.get("result"):
            best.take(line["step"], line.get(config.metric_for_best_model))
    return best
