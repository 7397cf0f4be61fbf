"""What verl writes while it trains, in the words of ``progress.json``, ``metrics.jsonl`` and the guard."""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from pathlib import Path
from typing import Any

from trainers.runtime import checkpoints
from trainers.runtime.files import append_line
from trainers.runtime.progress import Progress

log = logging.getLogger(__name__)

TRACKER = "latest_checkpointed_iteration.txt"
"""verl's own mark of the newest checkpoint that is whole, written last."""

NAMES = {
    "actor/pg_loss": "loss",
    "actor/lr": "learning_rate",
    "actor/grad_norm": "grad_norm",
    "actor/kl_loss": "kl_per_token",
    "critic/score/mean": "reward",
    "critic/vf_loss": "value_loss",
    "response_length/mean": "completions/mean_length",
    "response_length/clip_ratio": "completions/clipped_ratio",
    "perf/time_per_step": "seconds_per_step",
}
"""verl's names of what every rollout stage reports, and ours. Everything else stays in verl's own file."""


class Follower:
    """Reads verl's metrics file and checkpoints, from the driver, while verl runs."""

    def __init__(self, run_dir: Path, attempt: int, progress: Progress, gpus: int, max_steps: int) -> None:
        self.metrics = run_dir / "verl" / f"metrics-{attempt}.jsonl"
        self._run_dir, self._attempt, self._progress, self._gpus = run_dir, attempt, progress, gpus
        self._max_steps = max_steps
        self._read = 0
        self.step = 0

    def look(self) -> None:
        """Take over what is new since the last look."""
        for step, values in self._lines():
            self.step = max(self.step, step)
            line = translate(values, self._gpus)
            held_out = {name: value for name, value in line.items() if name.startswith("eval_")}
            for part in ({k: v for k, v in line.items() if k not in held_out}, held_out):
                if part:
                    self._tell(step, part)
            speed = {k: line[k] for k in ("loss", "tokens_per_second", "seconds_per_step") if k in line}
            self._progress.update(phase="training", step=self.step, max_steps=self._max_steps, **speed)
        self._mark()

    def _tell(self, step: int, values: dict[str, float]) -> None:
        head = {"schema": 1, "attempt": self._attempt, "step": step, "time": time.time()}
        append_line(self._run_dir / "metrics.jsonl", head | values)
        words = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        log.info("step %d/%d  %s", step, self._max_steps, words)

    def _lines(self) -> list[tuple[int, dict[str, Any]]]:
        """Whole new lines of the file; verl may be in the middle of one."""
        if not self.metrics.is_file():
            return []
        with self.metrics.open("rb") as file:
            file.seek(self._read)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._read += len(whole)
        return [(line["step"], line["data"]) for line in map(json.loads, whole.splitlines())]

    def _mark(self) -> None:
        """Put our mark on the checkpoint that verl has marked, and drop those that verl has emptied."""
        step = newest(self._run_dir)
        if step is None or step == checkpoints.newest_step(self._run_dir):
            return
        checkpoints.mark_complete(folder_of(self._run_dir, step), step)
        for _, old in checkpoints.complete(self._run_dir):
            # verl deletes what is in them, not the directories.
            if not (old / "actor").is_dir():
                shutil.rmtree(old, ignore_errors=True)


def newest(run_dir: Path) -> int | None:
    """Step of the newest checkpoint that verl has finished; None when there is none."""
    tracker = run_dir / checkpoints.FOLDER / TRACKER
    text = tracker.read_text(encoding="utf-8").strip() if tracker.is_file() else ""
    return int(text) if text.isdigit() and folder_of(run_dir, int(text)).is_dir() else None


def translate(values: dict[str, Any], gpus: int) -> dict[str, float]:
    """A line of verl's metrics under our names; numbers only, and only finite ones."""
    line = {NAMES[name]: value for name, value in values.items() if name in NAMES}
    if "perf/throughput" in values:
        line["tokens_per_second"] = values["perf/throughput"] * gpus
    held_out = [value for name, value in values.items() if name.startswith("val-") and "/reward/mean@" in name]
    if held_out:
        line["eval_reward"] = held_out[0]
    return {k: float(v) for k, v in line.items() if isinstance(v, int | float) and math.isfinite(v)}


def folder_of(run_dir: Path, step: int) -> Path:
    """verl's directory of the checkpoint after this step."""
    return run_dir / checkpoints.FOLDER / f"global_step_{step}"
