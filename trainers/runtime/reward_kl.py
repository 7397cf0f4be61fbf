"""``reward_kl_tracker.json``: how much reward a preference run has bought, and for how much divergence."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from trainers.runtime.files import read_json, write_json

NAMES = {
    "reward_chosen": "rewards/chosen",
    "reward_rejected": "rewards/rejected",
    "margin": "rewards/margins",
    "accuracy": "rewards/accuracies",
    "kl": "kl",
}
"""Our names and TRL's. The KL is there where it was measured: with every evaluation of held-out rows."""


class RewardKl(TrainerCallback):
    """Adds a point for every line of metrics: ``rows`` says whether of training or of held-out rows.

    Rewards of training rows are means since the line before. A resumed run goes on from its checkpoint.
    """

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / "reward_kl_tracker.json"
        self._points = read_json(self._path).get("points", [])

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Forget what an earlier attempt measured behind the checkpoint."""
        self._points = [point for point in self._points if point["step"] <= state.global_step]

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Take the point over, in place of one of the same step and rows."""
        for rows, prefix in (("training", ""), ("held_out", "eval_")):
            if not logs or f"{prefix}rewards/margins" not in logs or not state.is_world_process_zero:
                continue
            found = {ours: logs.get(prefix + theirs) for ours, theirs in NAMES.items()}
            # JSON has no infinity.
            finite = {ours: value if math.isfinite(value or 0.0) else None for ours, value in found.items()}
            here = {"step": state.global_step, "rows": rows}
            others = [point for point in self._points if (point["step"], point["rows"]) != (here["step"], rows)]
            self._points = sorted([*others, here | finite], key=lambda point: (point["step"], point["rows"]))
            write_json(self._path, {"points": self._points})
