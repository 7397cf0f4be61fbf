"""What one run asked for and what it used, from what it has left behind so far."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from clusterctl.adapters import metrics, store
from clusterctl.model import JobState, Resources
from clusterctl.plan import pace
from clusterctl.runs import health, status
from clusterctl.runs.find import Run
from clusterctl.status import Attempt, Health, Status

COMPARED = ("seconds_per_step", "tokens_per_second", "peak_memory", "train_seconds")

_GPU = re.compile(r"^  gpu: (?P<name>.*), (?P<mib>\d+) MiB, (?P<uuid>\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Card:
    """A GPU that the run has had, by the name of its driver; ``memory`` in bytes."""

    name: str
    memory: int


@dataclass(frozen=True)
class Compared:
    """One number that was expected and measured. Either may be unknown."""

    name: str
    predicted: float | None
    measured: float | None


@dataclass(frozen=True)
class Used:
    """What the run has taken. Times in seconds, memory in bytes, shares from 0 to 1; None: not known (yet).

    ``waited`` is the time in queues, between two attempts too; ``computing`` the share of ``ran`` that steps took.
    ``utilization`` has pairs of step and percent, of the first process's GPU.
    """

    cards: tuple[Card, ...]
    attempts: int
    waited: float | None
    ran: float | None
    computing: float | None
    gpu_hours: float | None
    peak_memory: int | None
    seconds_per_step: float | None
    tokens_per_second: float | None
    mfu: float | None
    data_wait: float | None
    utilization: tuple[tuple[int, float], ...]

    @property
    def busy(self) -> float | None:
        """Mean utilisation in percent."""
        return fmean(percent for _, percent in self.utilization) if self.utilization else None


@dataclass(frozen=True)
class Report:
    """The whole report. ``basis`` names what the prediction rests on; ``choice`` is the one of the submission."""

    run_id: str
    run_dir: Path
    stage: str
    kind: str
    recipe: str
    profile: str
    scheduler: str
    state: JobState
    why: str
    step: int
    max_steps: int | None
    eta_seconds: float | None
    makes_time_limit: bool | None
    asked: Resources
    used: Used
    basis: str
    compared: tuple[Compared, ...]
    choice: Mapping[str, Any]
    health: Health | None
    advice: tuple[str, ...] = ()


def report(run: Run) -> Report:
    """Everything but the advice, which needs the planner (``runs.advise``)."""
    [now] = status.look([run])
    attempts = store.read_attempts(run.run_dir)
    lines = metrics.whole(run.run_dir)
    summary = store.read_json(run.run_dir / "training_metrics.json")
    used = _used(run, now, attempts, lines)
    predicted = store.read_json(run.run_dir / "prediction.json")
    return Report(
        run_id=run.record.run_id,
        run_dir=run.run_dir,
        stage=run.record.stage,
        kind=run.record.kind,
        recipe=run.record.recipe,
        profile=run.record.profile,
        scheduler=run.record.scheduler,
        state=now.state,
        why=now.why,
        step=now.progress.step,
        max_steps=now.progress.max_steps,
        eta_seconds=now.eta_seconds,
        makes_time_limit=now.makes_time_limit,
        asked=run.record.resources,
        used=used,
        basis=_basis(predicted),
        compared=_compared(predicted, used, summary),
        choice=store.read_json(run.run_dir / "choice.json"),
        # Of all lines, where status looks at the two ends of them.
        health=health.judge(lines, run.record.stage, now.progress.max_steps) if lines else None,
    )


def _used(run: Run, now: Status, attempts: Sequence[Attempt], lines: Sequence[Mapping[str, Any]]) -> Used:
    trained = [line for line in lines if "loss" in line and not line.get("result")]
    # The first step also warms caches up.
    steady = trained[1:] or trained
    ran, had = _ran(now, attempts), cards(run.run_dir)
    each = _mean(steady, "seconds_per_step")
    gpus = run.record.resources.nodes * run.record.resources.gpus_per_node
    peaks = [int(peak) for line in trained if (peak := store.number(line.get("peak_memory")))]
    busy = [
        (line["step"], percent) for line in steady if (percent := store.number(line.get("gpu_utilization"))) is not None
    ]
    return Used(
        cards=had,
        attempts=len(attempts),
        waited=_waited(run, now, attempts),
        ran=ran,
        computing=min(pace.training(now.progress.step, each) / ran, 1.0) if each and ran else None,
        gpu_hours=gpus * ran / 3600 if gpus and ran else None,
        peak_memory=max(peaks) if peaks else None,
        seconds_per_step=each,
        tokens_per_second=_mean(steady, "tokens_per_second"),
        mfu=_mean(steady, "mfu"),
        data_wait=_mean(steady, "data_wait"),
        utilization=tuple(busy),
    )


def _waited(run: Run, now: Status, attempts: Sequence[Attempt]) -> float | None:
    """From each hand-over or end to the next start; of a run that waits, until now."""
    job = run.record.jobs[0] if run.record.jobs else None
    if job is None:
        return None
    since: float | None = job.requested_at
    total = 0.0
    for attempt in attempts:
        if since is not None:
            total += max(0.0, attempt.started_at - since)
        since = attempt.ended_at
    if now.state.waiting and since is not None:
        total += max(0.0, time.time() - since)
    return total if attempts or now.state.waiting else None


def _ran(now: Status, attempts: Sequence[Attempt]) -> float | None:
    """All attempts together; one that was cut off counts until the trainer's last word."""
    total = 0.0
    for attempt in attempts:
        ended = attempt.ended_at
        if ended is None and attempt is attempts[-1]:
            running = now.state.active and not now.state.waiting
            ended = time.time() if running else now.progress.updated_at
        total += max(0.0, (ended or attempt.started_at) - attempt.started_at)
    return total if attempts else None


def cards(run_dir: Path) -> tuple[Card, ...]:
    """Those of the newest attempt, as it wrote them down when it began."""
    try:
        text = (run_dir / "environment_info.txt").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ()
    return tuple(Card(found["name"], int(found["mib"]) * 2**20) for found in _GPU.finditer(text))


def _basis(predicted: Mapping[str, Any]) -> str:
    if test := predicted.get("from_test"):
        return f"the test {test}"
    return "an estimate" if predicted.get("estimate") else ""


def _compared(predicted: Mapping[str, Any], used: Used, summary: Mapping[str, Any]) -> tuple[Compared, ...]:
    measured = {
        "seconds_per_step": used.seconds_per_step,
        "tokens_per_second": used.tokens_per_second,
        "peak_memory": used.peak_memory,
        "train_seconds": store.number(summary.get("train_seconds")),
    }
    rows = (Compared(name, store.number(predicted.get(name)), measured[name]) for name in COMPARED)
    return tuple(row for row in rows if row.predicted is not None)


def _mean(lines: Sequence[Mapping[str, Any]], name: str) -> float | None:
    found = [value for line in lines if (value := store.number(line.get(name))) is not None]
    return fmean(found) if found else None
