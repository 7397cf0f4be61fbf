"""Cancelling and resuming runs that exist."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clusterctl.adapters import store
from clusterctl.errors import Rejected, Unavailable
from clusterctl.model import JobState
from clusterctl.runs import find, schedulers, status, submit
from clusterctl.runs.find import Run


@dataclass(frozen=True)
class Cancelled:
    """A run and what cancelling did to it."""

    run_id: str
    was: JobState
    done: bool
    words: str


def cancel(runs: Sequence[Run]) -> list[Cancelled]:
    """Cancel what waits or runs; ended runs are left as they are and named.

    Raises:
        Unavailable: a scheduler did not answer, so nobody knows what runs; nothing was cancelled there.
        Rejected: the jobs are not ours.
    """
    results: list[Cancelled] = []
    for run, now in zip(runs, status.look(runs, max_age=0), strict=True):
        run_id = run.record.run_id
        if now.state.final or now.gone:
            results.append(Cancelled(run_id, now.state, False, f"has ended already: {now.state}"))
            continue
        ref = status.job_ref(Run(run.run_dir, now.record))
        if now.state is JobState.UNKNOWN:
            raise Unavailable(f"{run_id}: {now.why}", hint="nothing was cancelled; try again when it answers")
        if ref is None:
            raise Rejected(f"{run_id} runs in the foreground of a terminal", hint="press Ctrl-C there")
        schedulers.get(run.record.scheduler).cancel([ref])
        submit.note_cancelled(run)
        results.append(Cancelled(run_id, now.state, True, f"cancelled while {now.state}"))
    return results


def resume(run: Run) -> Run:
    """Submit a run again; it goes on from its newest complete checkpoint.

    Raises:
        Rejected: it still waits or runs, or has finished, or what it comes after has not ended well.
        NotFound: a run that it comes after is gone.
        Unavailable: it is not known whether it runs.
    """
    with store.locked(run.run_dir):
        # Another terminal may have resumed it while we waited for the lock.
        return _resume(Run(run.run_dir, store.read_record(run.run_dir)))


def _resume(run: Run) -> Run:
    [now] = status.look([run], max_age=0)
    run_id = run.record.run_id
    if now.state.active:
        raise Rejected(f"{run_id} is {now.state}: it needs no resuming", hint=f"clusterctl tail -f {run_id}")
    if now.state is JobState.COMPLETED:
        raise Rejected(f"{run_id} has finished", hint=f"its model is in {now.run_dir / 'final_model'}")
    if not now.gone:
        raise Unavailable(f"{run_id}: {now.why}", hint="it may still run; try again when the scheduler answers")
    parents = [find.one(run.run_dir.parent, parent) for parent in run.record.after]
    again = submit.hand_over(Run(run.run_dir, now.record), parents)
    (run.run_dir / status.CANCELLED).unlink(missing_ok=True)
    return again
