"""Cancelling and resuming runs that exist."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from clusterctl.adapters import store
from clusterctl.errors import ClusterctlError, Rejected, Unavailable
from clusterctl.model import JobState
from clusterctl.runs import aftercare, find, moved, schedulers, status, submit
from clusterctl.runs.find import Run
from clusterctl.status import Status


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
    answers: list[Cancelled] = []
    # The runs of a sweep are cancelled together: one by one, those that wait would start as others end.
    looks = zip(runs, status.look(runs, max_age=0), strict=True)
    for sweep, pairs in groupby(looks, key=lambda pair: pair[0].record.sweep):
        group = list(pairs)
        answers += _cancel_together(group) if sweep else [_cancel(*pair) for pair in group]
    return answers


def _cancel_together(group: Sequence[tuple[Run, Status]]) -> list[Cancelled]:
    """As ``_cancel``, with one order to the scheduler for all that wait or run."""
    living = {
        run.run_dir: ref
        for run, now in group
        if now.state.active and (ref := status.job_ref(Run(run.run_dir, now.record))) is not None
    }
    problem: ClusterctlError | None = None
    if living:
        for run_dir in living:
            with contextlib.suppress(Unavailable):
                submit.note_cancelled(run_dir)
        try:
            schedulers.get(group[0][0].record.scheduler).cancel(list(living.values()))
        except ClusterctlError as e:
            problem = e
            for run_dir in living:
                (run_dir / status.CANCELLED).unlink(missing_ok=True)
    answers = []
    for run, now in group:
        if run.run_dir not in living:
            answers.append(_cancel(run, now))
        elif problem:
            words = f"not cancelled: {problem.message}"
            answers.append(Cancelled(run.record.run_id, now.state, False, words, problem.exit_code))
        else:
            answers.append(Cancelled(run.record.run_id, now.state, True, f"cancelled while {now.state}"))
    return answers


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
    with contextlib.suppress(Unavailable):  # a full disk: the job is cancelled all the same
        submit.note_cancelled(run.run_dir)  # before: the job reads it to know who ends it
    try:
        schedulers.get(run.record.scheduler).cancel([ref])
    except ClusterctlError as e:
        (run.run_dir / status.CANCELLED).unlink(missing_ok=True)
        return Cancelled(run_id, now.state, False, f"not cancelled: {e.message}", e.exit_code)
    return Cancelled(run_id, now.state, True, f"cancelled while {now.state}")


def resume(run: Run, sets: Sequence[str] = ()) -> Run:
    """Submit a run again; it goes on from its newest complete checkpoint, changed by ``sets``.

    Raises:
        Rejected: it still waits or runs, or has finished, or is another user's, or what it comes after has not ended
            well.
        NotFound: a run that it comes after is gone.
        UsageProblem: a change that is wrong, or needs another job script; files that it names are gone.
        Unavailable: it is not known whether it runs.
    """
    with store.locked(run.run_dir):
        # Another terminal may have resumed it while we waited for the lock.
        return _resume(Run(run.run_dir, store.read_record(run.run_dir)), sets)


def _resume(run: Run, sets: Sequence[str]) -> Run:
    [now] = status.look([run], max_age=0)
    run_id = run.record.run_id
    if now.state.active:
        raise Rejected(f"{run_id} is {now.state}: it needs no resuming", hint=f"clusterctl tail -f {run_id}")
    if now.state is JobState.COMPLETED:
        raise Rejected(f"{run_id} has finished", hint=f"its model is in {now.run_dir / 'final_model'}")
    if not now.gone:
        raise Unavailable(f"{run_id}: {now.why}", hint="it may still run; try again when the scheduler answers")
    parents = [find.one(run.run_dir.parent, parent) for parent in run.record.after]
    moved.check(run)
    with aftercare.changed(run, sets):
        again = submit.hand_over(Run(run.run_dir, now.record), parents)
    (run.run_dir / status.CANCELLED).unlink(missing_ok=True)
    return again
