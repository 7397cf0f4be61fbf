"""What a person sees after submitting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from clusterctl.runs.find import Run
from clusterctl.runs.request import Request


def data(run: Run) -> dict[str, Any]:
    """The JSON answer for one submitted run."""
    job = run.record.job
    return {
        "run_id": run.record.run_id,
        "job_id": job.job_id if job else None,
        "scheduler": run.record.scheduler,
        "run_dir": run.run_dir,
        "profile": run.record.profile,
        "after": run.record.after,
    }


def view(runs: Sequence[Run], request: Request, *, tested: bool) -> str:
    """Which runs are queued where, and what to type next."""
    lines = []
    for run in runs:
        record, job = run.record, run.record.job
        after = f", after {', '.join(record.after)}" if record.after else ""
        job_id = job.job_id if job else None
        lines.append(f"submitted {record.run_id}: {record.scheduler} job {job_id}, profile {record.profile}{after}")
    if not tested:
        lines.append(f"note: no passing test exists for this configuration: {like(request, runs).typed('test')}")
    lines.append(f"follow it: clusterctl tail -f {runs[-1].record.run_id}")
    return "\n".join(lines) + "\n"


def like(request: Request, runs: Sequence[Run]) -> Request:
    """The request with the profile that its run got; the members of a pipeline may have got several."""
    return replace(request, profile=runs[0].record.profile) if len(runs) == 1 else request


def resumed(run: Run) -> str:
    """One line on the new job."""
    job = run.record.job
    return f"resumed {run.record.run_id}: {run.record.scheduler} job {job.job_id if job else None}\n"
