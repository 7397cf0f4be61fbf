"""What finished tests and runs have measured: peaks, step times, efficiency. Read from what they left behind."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clusterctl.adapters import store
from clusterctl.adapters.store import number
from clusterctl.plan.estimates import Point
from clusterctl.runs import find
from clusterctl.runs.find import Run
from trainers import hardware

NEWEST = 200
"""So many runs, the newest, are looked at: what is older was measured with other versions."""


def points(root: Path) -> list[Point]:
    """A point for each of the newest runs below ``root`` that has finished, oldest first. Never raises for a run."""
    runs, _ = find.every(root)
    return [found for run in runs[-NEWEST:] if (found := point(run))]


def point(run: Run) -> Point | None:
    """What one run has measured; None where it has not finished, or its loss was no number."""
    said = store.read_json(run.run_dir / "training_metrics.json")
    if number(said.get("last_loss")) is None:
        return None
    from trainers import fixes

    if (run.run_dir / fixes.NOTES).exists():
        return None  # a run that was changed under way is not what its fingerprint says
    gpu = gpu_type(said, run)
    peak = number(said.get("peak_memory"))
    return Point(
        run_id=run.record.run_id,
        fingerprint=run.record.fingerprint,
        gpu=gpu,
        # Without a GPU it is the size of the process.
        peak_memory=int(peak) if peak and gpu != "cpu" else None,
        seconds_per_step=number(said.get("seconds_per_step")) or None,
        tokens_per_second=number(said.get("tokens_per_second")) or None,
        mfu=number(said.get("mfu")) or None,
        stage=run.record.stage,
        model_type=str(said.get("model_type") or ""),
        adapter=str(said.get("adapter") or ""),
    )


def gpu_type(said: dict[str, Any], run: Run) -> str:
    """The type of the GPU that a summary names; as the run asked, where the summary is an older one."""
    gpu = said.get("gpu")
    if isinstance(gpu, dict):
        memory = number(gpu.get("memory"))
        name = str(gpu.get("name") or "")
        known = hardware.find(name, int(memory) if memory else None)
        return known.name if known else hardware.short_name(name) or "unknown"
    asked = run.record.resources
    return (asked.gpu_type or "unknown") if asked.gpus_per_node else "cpu"


def same(points: Sequence[Point], fingerprint: str, gpu: str | None = None) -> Point | None:
    """The newest point of this very configuration, and of this type of GPU where one is named."""
    return next((p for p in reversed(points) if p.fingerprint == fingerprint and gpu in (None, p.gpu)), None)


def alike(points: Sequence[Point], *, gpu: str, stage: str, model_type: str, adapter: str) -> Point | None:
    """The newest point of the same kind on the same type of GPU, for its efficiency alone.

    Its step time and its peak belong to another model or batch, so they are left out.
    """
    wanted = (gpu, stage, model_type, adapter)
    for p in reversed(points):
        if p.mfu and (p.gpu, p.stage, p.model_type, p.adapter) == wanted:
            return dataclasses.replace(p, seconds_per_step=None, tokens_per_second=None, peak_memory=None)
    return None
