"""What is to be expected of a run that is submitted: from a test of it, else the planner's estimate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clusterctl.plan.estimates import Duration, Fit, Point
from clusterctl.plan.memory import of_pytorch
from clusterctl.plan.work import sequences
from clusterctl.runs import judge, measured, rows, tested
from clusterctl.runs.draft import Draft


def memory_notes(drafts: Sequence[Draft], root: Path) -> list[str]:
    """What the user should know of memory before a job waits for GPUs or fills a machine; nothing where it fits."""
    points = measured.points(root)
    return [note for one in drafts for note in _memory_note(one, points)]


def _memory_note(one: Draft, points: Sequence[Point]) -> list[str]:
    composed = one.composed
    name, gpus = composed.config.name, composed.profile.gpus_per_node
    if composed.memory is None and not gpus:
        return []
    if composed.memory is None:
        model = composed.config.model.model_name_or_path
        return [f"{name}: memory not estimated: nothing is known here of the model {model}"]
    verdict = judge.fits(composed, points, one.fingerprint, one.plan.scheduler)
    if verdict.fit is Fit.FITS or (verdict.fit is not Fit.NOT and not gpus):
        return []
    return [f"{name}: {verdict.fit}, by estimate: {verdict.why}; `clusterctl plan` says what would help"]


def prediction(draft: Draft, root: Path) -> dict[str, Any] | None:
    """What the trainer puts beside its own measurements, in the run card; None where nothing can be said.

    With ``from_test`` it rests on the newest passing test of this configuration, with ``estimate`` on the planner.
    ``train_seconds`` has evaluations and checkpoints in it, as the trainer's has.
    """
    composed, seen = draft.composed, rows.look(draft.composed.config)
    judged = judge.judge(composed, seen, measured.points(root), draft.fingerprint, draft.plan.scheduler)
    took, memory = judged.duration, judged.memory
    if test := tested.passed(root, draft.fingerprint):
        shown = tested.judge(test)
        return {
            "schema": 1,
            "from_test": shown.run_id,
            "seconds_per_step": shown.seconds_per_step,
            "tokens_per_second": shown.tokens_per_second,
            "peak_memory": shown.peak_memory,
            "train_seconds": _looping(took) if took else shown.estimate,
        }
    # Without a GPU the trainer measures the size of its process, of which the estimate says nothing.
    peak = of_pytorch(memory) if memory and composed.profile.gpus_per_node else None
    if took is None and peak is None:
        return None
    each = took.seconds_per_step if took else None
    tokens = judged.batch.effective * seen.length * sequences(composed.config)
    return {
        "schema": 1,
        "estimate": True,
        "seconds_per_step": each,
        "tokens_per_second": tokens / each if each else None,
        "peak_memory": peak,
        "train_seconds": _looping(took) if took else None,
    }


def _looping(took: Duration) -> float:
    """Seconds of the training loop, without what comes before it."""
    return sum(span.seconds for span in took.spans if span.name != "starting")
