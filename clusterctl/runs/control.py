"""Cancelling and resuming runs that exist."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from clusterctl.adapters import store
from clusterctl.errors import ClusterctlError, Rejected, Unavailable
from clusterctl.model import JobState, Status
from clusterctl.runs import find, schedulers, status, submit
from clusterctl.runs.find import Run


@dataclass(frozen=True)
class Cancelled:
    """A run and what cancelling did to it; ``exit_code`` as a command's, 0 where nothing is left to wish for."""

    run_id: str
    was: JobState
    done: bool
    words: str
    exit_code: int = 0


def cancel(runs: Sequence[Run]) -> list[Cancelled]:
    """Cancel what waits or runs. Each run has its own answer: one that cannot be cancelled hides no other."""
    return [_cancel(run, now) for run, now in zip(runs, status.look(runs, max_age=0), strict=True)]


def _cancel(run: Run, now: Status) -> Cancelled:
    run_id = run.record.run_id
    ref = status.job_ref(Run(run.run_dir, now.record))
    if now.state.final or now.gone:
        return Cancelled(run_id, now.state, False, f"has ended already: {now.state}")
    if now.state is JobState.UNKNOWN:
        return Cancelled(run_id, now.state, False, f"not cancelled: {now.why}", Unavailable.exit_code)
    if ref is None:
        words = "not cancelled: it runs in the foreground of a terminal, press Ctrl-C there"
        return Cancelled(run_id, now.state, False, words, Rejected.exit_code)
    try:
        schedulers.get(run.record.scheduler).cancel([ref])
    except ClusterctlError as e:
        return Cancelled(run_id, now.state, False, f"not cancelled: {e.message}", e.exit_code)
    with contextlib.suppress(Unavailable):  # a full disk: the job is cancelled all the same
        submit.note_cancelled(run)
    return Cancelled(run_id, now.state, True, f"cancelled while {now.state}")


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
