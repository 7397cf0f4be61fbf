"""What a person sees after submitting."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from clusterctl.runs.draft import Request
from clusterctl.runs.find import Run


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
        lines.append(f"note: no passing test exists for this configuration: {_test_command(request)}")
    lines.append(f"follow it: clusterctl tail -f {runs[-1].record.run_id}")
    return "\n".join(lines) + "\n"


def _test_command(request: Request) -> str:
    words = ["clusterctl", "test", request.recipe]
    words += ["--profile", request.profile] if request.profile else []
    words += [word for item in request.sets for word in ("--set", item)]
    words += ["--engine", request.engine] if request.engine else []
    words += ["--force-start"] if request.force_start else []
    words += ["--scheduler", request.scheduler] if request.scheduler else []
    return shlex.join(words)


def resumed(run: Run) -> str:
    """One line on the new job."""
    job = run.record.job
    return f"resumed {run.record.run_id}: {run.record.scheduler} job {job.job_id if job else None}\n"
