"""The verdict on a test run, derived from what it left behind, and the search for a passing one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusterctl.adapters import store
from clusterctl.model import JobState
from clusterctl.plan import pace
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
    in_time: bool | None
    """Whether that is over before the scheduler's signal, by estimate."""


def judge(run: Run) -> Verdict:
    """Judge a test run by its state, its steps and its loss."""
    [now] = status.look([run])
    progress = now.progress
    why = _objection(run, now.state, now.why)
    metrics = store.read_json(run.run_dir / "training_metrics.json")
    # Their means; a test that failed has only what it said last.
    each = store.number(metrics.get("seconds_per_step")) or progress.seconds_per_step
    speed = store.number(metrics.get("tokens_per_second")) or progress.tokens_per_second
    full_steps = _full_steps(run, metrics)
    estimate = pace.training(full_steps, each) if full_steps and each else None
    limit = run.record.full_time_limit or run.record.resources.time_limit
    return Verdict(
        run_id=run.record.run_id,
        passed=not why,
        why=why or "all steps done, loss finite",
        steps=progress.step,
        peak_memory=progress.peak_memory,
        device=str(store.read_json(run.run_dir / "progress.json").get("device") or ""),
        seconds_per_step=each,
        tokens_per_second=speed,
        full_steps=full_steps,
        estimate=estimate,
        time_limit=limit,
        in_time=None if estimate is None else estimate <= limit - run.record.resources.signal_lead,
    )


def passed(root: Path, fingerprint: str) -> Run | None:
    """The newest test run of this very configuration that passed, if there is one."""
    runs, _ = find.every(root)
    for run in reversed(runs):
        if run.record.kind == "test" and run.record.fingerprint == fingerprint and judge(run).passed:
            return run
    return None


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


def _full_steps(run: Run, metrics: Mapping[str, Any]) -> int | None:
    """Steps of the full run: as the recipe says, or from the share of an epoch that the test made."""
    record = run.record
    if record.max_steps:
        return record.max_steps
    steps, epochs = metrics.get("steps"), metrics.get("epochs")
    if isinstance(steps, int) and isinstance(epochs, float) and epochs > 0:
        return math.ceil(round(steps / epochs) * record.num_train_epochs)
    return None
