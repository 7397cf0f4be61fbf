"""The verdict on a test run, derived from what it left behind, and the search for a passing one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusterctl.adapters import store
from clusterctl.model import JobState
from clusterctl.runs import find, status
from clusterctl.runs.find import Run


@dataclass(frozen=True)
class Verdict:
    """What 50 steps showed. ``estimate`` is the full run's training time in seconds: an estimate, from the
    measured step time, without queue, loading and evaluation.
    """

    run_id: str
    passed: bool
    why: str
    steps: int
    peak_memory: int | None
    device: str
    seconds_per_step: float | None
    tokens_per_second: float | None
    full_steps: int | None
    estimate: float | None
    time_limit: int


def judge(run: Run) -> Verdict:
    """Judge a test run by its state, its steps and its loss."""
    [now] = status.look([run])
    progress = now.progress
    why = _objection(run, now.state, now.why)
    full_steps = _full_steps(run)
    estimate = full_steps * progress.seconds_per_step if full_steps and progress.seconds_per_step else None
    return Verdict(
        run_id=run.record.run_id,
        passed=not why,
        why=why or "all steps done, loss finite",
        steps=progress.step,
        peak_memory=progress.peak_memory,
        device=str(store.read_json(run.run_dir / "progress.json").get("device") or ""),
        seconds_per_step=progress.seconds_per_step,
        tokens_per_second=progress.tokens_per_second,
        full_steps=full_steps,
        estimate=estimate,
        time_limit=run.record.full_time_limit or run.record.resources.time_limit,
    )


def passed(root: Path, fingerprint: str) -> Run | None:
    """The newest test run of this very configuration that passed, if there is one."""
    runs, _ = find.every(root)
    for run in reversed(runs):
        if run.record.kind == "test" and run.record.fingerprint == fingerprint and judge(run).passed:
            return run
    return None


def prediction(root: Path, fingerprint: str) -> dict[str, Any] | None:
    """What the newest passing test of this configuration lets expect of the run; None without such a test.

    The trainer puts it beside what it measures, in the run card.
    """
    test = passed(root, fingerprint)
    if test is None:
        return None
    shown = judge(test)
    return {
        "schema": 1,
        "from_test": shown.run_id,
        "seconds_per_step": shown.seconds_per_step,
        "tokens_per_second": shown.tokens_per_second,
        "peak_memory": shown.peak_memory,
        "train_seconds": shown.estimate,
    }


def _objection(run: Run, state: JobState, why: str) -> str:
    progress = store.read_progress(run.run_dir)
    if state is not JobState.COMPLETED:
        return f"{state}: {why}"
    if progress.phase != "finished":
        return f"the trainer did not finish, its last word was {progress.phase!r}"
    if progress.max_steps is None or progress.step < progress.max_steps:
        return f"only {progress.step} of {progress.max_steps} steps were done"
    if progress.loss is None or not math.isfinite(progress.loss):
        return "the loss was not a finite number"
    return ""


def _full_steps(run: Run) -> int | None:
    """Steps of the full run: as the recipe says, or from the share of an epoch that the test made."""
    record = run.record
    if record.max_steps:
        return record.max_steps
    metrics = store.read_json(run.run_dir / "training_metrics.json")
    steps, epochs = metrics.get("steps"), metrics.get("epochs")
    if isinstance(steps, int) and isinstance(epochs, float) and epochs > 0:
        return math.ceil(round(steps / epochs) * record.num_train_epochs)
    return None
