"""What a person sees after submitting or resuming a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clusterctl.runs.find import Run
from clusterctl.views import submitted
from clusterctl.views.text_table import table


def data(runs: Sequence[Run]) -> dict[str, Any]:
    """The JSON answer."""
    members = [{**submitted.data(run), "swept": run.record.swept} for run in runs]
    return {"sweep": runs[0].record.sweep, "parallel": runs[0].record.parallel, "runs": members}


def view(runs: Sequence[Run]) -> str:
    """The runs with the values that are their own, and what to type next."""
    first = runs[0].record
    limit = f", {first.parallel} at a time" if first.parallel else ""
    after = f", after {', '.join(first.after)}" if first.after else ""
    head = f"submitted {first.sweep}: {len(runs)} runs on {first.scheduler}{limit}, profile {first.profile}{after}\n"
    return f"{head}{_runs(runs)}watch it: clusterctl status {first.sweep} --watch\n{_compare(first.sweep)}"


def resumed(runs: Sequence[Run]) -> str:
    """The runs that were handed over again."""
    return f"resumed {len(runs)} of {runs[0].record.sweep}\n{_runs(runs)}"


def _runs(runs: Sequence[Run]) -> str:
    rows = [
        (run.record.run_id, (run.record.job.job_id if run.record.job else None) or "", ", ".join(run.record.swept))
        for run in runs
    ]
    return table(("RUN", "JOB", "VALUES"), rows)


def _compare(sweep: str) -> str:
    return f"compare them: clusterctl compare {sweep}\n"
