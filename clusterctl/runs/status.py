"""The truth about runs, derived at every look from record, scheduler and what job and trainer wrote."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clusterctl.adapters import metrics, store
from clusterctl.adapters.scheduler import Scheduler
from clusterctl.adapters.slurm_words import explain_reason
from clusterctl.durations import words
from clusterctl.errors import Unavailable
from clusterctl.model import Job, JobRef, JobState
from clusterctl.plan import pace
from clusterctl.record import JobEntry
from clusterctl.runs import health, schedulers
from clusterctl.runs.find import Run, confirm
from clusterctl.status import Attempt, Health, Progress, Status

FOREGROUND_LOCK = "foreground.lock"
CANCELLED = "cancelled.json"
IN_FLIGHT = 120.0
"""Seconds for which a hand-over whose answer was lost may still arrive."""


@dataclass(frozen=True)
class _Evidence:
    """What lies in the run directory."""

    progress: Progress
    attempts: Sequence[Attempt]
    cancelled: bool
    lines: Sequence[Mapping[str, Any]] = ()
    """The first and the last of its metrics."""

    @property
    def last(self) -> Attempt | None:
        return self.attempts[-1] if self.attempts else None

    def ended(self, job_id: str | None) -> Attempt | None:
        """The newest attempt, when it belongs to this job and has said how it ended for good."""
        last = self.last
        if last and last.ended_at is not None and last.decision != "requeue" and last.job_id == (job_id or ""):
            return last
        return None


def look(runs: Sequence[Run], *, max_age: float = 5.0) -> list[Status]:
    """The status of each run, with one scheduler query for all of them.

    A scheduler that does not answer makes its runs UNKNOWN, with its words as the reason; it is no error.
    A hand-over whose answer was lost is looked for by its token, and its record completed.
    """
    evidence = {run.run_dir: _with_metrics(run.run_dir, _read(run.run_dir)) for run in runs}
    open_runs = [r for r in runs if r.record.job and not _finished_well(r, evidence[r.run_dir])]
    answers = {
        name: _ask(schedulers.get(name), [run for run in open_runs if run.record.scheduler == name], max_age)
        for name in {run.record.scheduler for run in open_runs}
    }
    return [_status(run, evidence[run.run_dir], answers.get(run.record.scheduler)) for run in runs]


@dataclass(frozen=True)
class _Answer:
    """What a scheduler said: the jobs it knows, or ``silence`` in words when it did not answer."""

    adapter: Scheduler
    jobs: Mapping[str, Job]
    found: Mapping[Path, Run]
    silence: str = ""


def _ask(adapter: Scheduler, runs: Sequence[Run], max_age: float) -> _Answer:
    found: dict[Path, Run] = {}
    try:
        for run in runs:
            entry = run.record.job
            if entry and entry.job_id is None and (job_id := adapter.find(entry.token) or _arrived(run, entry)):
                found[run.run_dir] = confirm(run, job_id)
        refs = [ref for run in runs if (ref := job_ref(found.get(run.run_dir, run)))]
        return _Answer(adapter, adapter.jobs(refs, max_age=max_age) if refs else {}, found)
    except Unavailable as e:
        return _Answer(adapter, {}, found, e.message)


def _arrived(run: Run, entry: JobEntry) -> str:
    """The job id that an attempt since the hand-over has left, when the queue has forgotten the job already."""
    since = [a for a in store.read_attempts(run.run_dir) if a.started_at > entry.requested_at and a.job_id]
    return since[-1].job_id if since else ""


def job_ref(run: Run) -> JobRef | None:
    """What identifies the newest job of a run, or None while it has no confirmed job id."""
    job = run.record.job
    if job is None or job.job_id is None:
        return None
    return JobRef(job.job_id, job.token, job.requested_at, run.run_dir)


def unsettled(run: Run) -> bool:
    """More may happen to this run, as far as its own directory tells."""
    return not _finished_well(run, _read(run.run_dir))


def _read(run_dir: Path) -> _Evidence:
    progress, attempts = store.read_progress(run_dir), store.read_attempts(run_dir)
    if attempts and progress.attempt not in (0, attempts[-1].number):
        # Until the new attempt speaks, what the old one said of itself is not true of it.
        kept = Progress(step=progress.step, max_steps=progress.max_steps, loss=progress.loss)
        progress = replace(kept, attempt=attempts[-1].number)
    return _Evidence(progress, attempts, (run_dir / CANCELLED).exists())


def _with_metrics(run_dir: Path, evidence: _Evidence) -> _Evidence:
    return replace(evidence, lines=metrics.glance(run_dir)) if evidence.progress.step else evidence


def _finished_well(run: Run, evidence: _Evidence) -> bool:
    """The newest attempt finished, and is of the newest job, or was started by hand since then."""
    job, last = run.record.job, evidence.last
    if last is None or last.decision != "done" or last.exit_code != 0:
        return False
    return job is None or last.job_id == job.job_id or last.started_at > job.requested_at


def _status(run: Run, evidence: _Evidence, answer: _Answer | None) -> Status:
    if run.record.job is None:
        return _foreground(run, evidence)
    if answer is None or _finished_well(run, evidence):
        return _from_evidence(run, evidence, JobState.COMPLETED, "finished", gone=True)
    run = answer.found.get(run.run_dir, run)
    ref = job_ref(run)
    if answer.silence:
        silence = f"{run.record.scheduler} does not answer: {answer.silence}"
        return _from_evidence(run, evidence, JobState.UNKNOWN, silence)
    if ref is None:
        return _unconfirmed(run, evidence)
    job = answer.jobs.get(ref.token)
    return _from_job(run, evidence, job) if job else _forgotten(run, evidence, answer.adapter, ref)


def _unconfirmed(run: Run, evidence: _Evidence) -> Status:
    """The answer to the hand-over was lost, and the queue does not hold it (yet)."""
    entry = run.record.job
    # A request that timed out can lie at slurmctld's door and be taken in when it wakes.
    if entry is not None and time.time() - entry.requested_at < IN_FLIGHT:
        why = "submission not confirmed; it may still arrive in the queue"
        return _from_evidence(run, evidence, JobState.UNKNOWN, why)
    why = "submission not confirmed and not in the queue: clusterctl resume submits it again"
    return _from_evidence(run, evidence, JobState.UNKNOWN, why, gone=True)


def _foreground(run: Run, evidence: _Evidence) -> Status:
    """A run of ``clusterctl run``: it holds a kernel lock as long as it lives."""
    last = evidence.last
    if not (run.run_dir / FOREGROUND_LOCK).exists():
        why = "was prepared and never handed over: clusterctl resume submits it"
        return _from_evidence(run, evidence, JobState.UNKNOWN, why, gone=True)
    if _lock_is_held(run.run_dir / FOREGROUND_LOCK):
        return _from_evidence(run, evidence, JobState.RUNNING, "in the foreground of a terminal")
    if last and last.ended_at is not None:
        return _by_end(run, evidence, last)
    return _from_evidence(run, evidence, JobState.FAILED, "ended without a word (killed)", gone=True)


def _forgotten(run: Run, evidence: _Evidence, adapter: Scheduler, ref: JobRef) -> Status:
    """The scheduler answered and does not know the job any more; its own last words decide, if it left any."""
    if end := evidence.ended(ref.job_id):
        return _by_end(run, evidence, end)
    if evidence.cancelled:
        return _from_evidence(run, evidence, JobState.CANCELLED, "cancelled with clusterctl cancel", gone=True)
    seen = adapter.last_seen(ref)
    if seen is None:
        why = "; ".join([f"{run.record.scheduler} does not know job {ref.job_id} (any more)", *adapter.warnings])
        return _from_evidence(run, evidence, JobState.UNKNOWN, why, gone=True)
    state, when = seen
    ago = words(time.time() - when)
    if state.final:
        return _from_evidence(run, evidence, state, f"seen {ago} ago, since forgotten by Slurm", gone=True)
    last_words = f"last seen {state} {ago} ago; {run.record.scheduler} does not know it any more"
    why = "; ".join([last_words, *adapter.warnings])
    return _from_evidence(run, evidence, JobState.UNKNOWN, why, gone=True, last_seen=when)


def _by_end(run: Run, evidence: _Evidence, end: Attempt) -> Status:
    if end.exit_code == 0 and end.decision == "done":
        return _from_evidence(run, evidence, JobState.COMPLETED, "finished", gone=True)
    stopped = evidence.cancelled or end.outcome == "saved"
    state = JobState.CANCELLED if stopped else JobState.FAILED
    return _from_evidence(run, evidence, state, _failure(evidence) or f"exit code {end.exit_code}", gone=True)


def _from_evidence(
    run: Run,
    evidence: _Evidence,
    state: JobState,
    why: str,
    *,
    gone: bool = False,
    last_seen: float | None = None,
) -> Status:
    last = evidence.last
    return Status(
        record=run.record,
        run_dir=run.run_dir,
        state=state,
        why=why,
        where=last.host if last else "",
        progress=evidence.progress,
        attempts=len(evidence.attempts),
        started_at=last.started_at if last else None,
        ended_at=last.ended_at if last else None,
        eta_seconds=_eta(evidence) if state is JobState.RUNNING else None,
        last_seen=last_seen,
        health=_health(run, evidence),
        cause=_cause(evidence) if state is JobState.FAILED else "",
        gone=gone,
    )


def _from_job(run: Run, evidence: _Evidence, job: Job) -> Status:
    last = evidence.last
    eta = _eta(evidence) if job.state is JobState.RUNNING else None
    limit = job.time_limit or run.record.resources.time_limit
    # A requeued job gets its whole limit again, so the newest start counts.
    began = max(filter(None, (job.started_at, last.started_at if last else None)), default=None)
    makes_it = None
    if eta is not None and began is not None:
        # The signal makes it save and leave, so it has that much less.
        makes_it = time.time() + eta <= began + limit - run.record.resources.signal_lead
    return Status(
        record=run.record,
        run_dir=run.run_dir,
        state=job.state,
        why=_why(job, evidence),
        where=job.where,
        progress=evidence.progress,
        attempts=len(evidence.attempts),
        started_at=job.started_at,
        ended_at=job.ended_at,
        eta_seconds=eta,
        makes_time_limit=makes_it,
        health=_health(run, evidence),
        cause=_cause(evidence) if job.state in _FAILED else "",
        gone=job.state.final,
    )


def _why(job: Job, evidence: _Evidence) -> str:
    """Why the job is in its state: the trainer's own words where it left some, else the scheduler's."""
    progress, reason = evidence.progress, explain_reason(job.reason)
    match job.state:
        case JobState.RUNNING:
            # Where the disk is full, the local runner waits for room to record the end.
            if end := evidence.ended(job.job_id):
                return f"ending: {end.why}"
            return reason or progress.phase or "starting"
        case JobState.COMPLETED:
            ended = progress.phase == "finished" or not progress.phase
            return "finished" if ended else f"the job ended well, but its trainer last said {progress.phase!r}"
        case JobState.FAILED | JobState.TIMEOUT | JobState.PREEMPTED | JobState.NODE_FAIL | JobState.OUT_OF_MEMORY:
            return _failure(evidence) or _code(job) or reason or job.state.lower().replace("_", " ")
        case _:
            if evidence.attempts and job.state.waiting:
                return f"{reason or 'waiting'}; begins again at attempt {len(evidence.attempts) + 1}"
            return reason or job.state.lower().replace("_", " ")


_FAILED = (JobState.FAILED, JobState.OUT_OF_MEMORY)


def _cause(evidence: _Evidence) -> str:
    """What the guard found to be the cause, in words."""
    from trainers.failures import CAUSES

    last = evidence.last
    known = CAUSES.get(last.cause) if last and last.ended_at is not None else None
    return known.title if known else ""


def _failure(evidence: _Evidence) -> str:
    """The trainer's own last words, else the guard's."""
    progress, last = evidence.progress, evidence.last
    if progress.error and (last is None or progress.attempt in (0, last.number)):
        return progress.error
    return last.why if last and last.ended_at is not None else ""


def _code(job: Job) -> str:
    if job.signal:
        return f"killed by signal {job.signal}"
    return f"exit code {job.exit_code}" if job.exit_code else ""


def _eta(evidence: _Evidence) -> float | None:
    progress = evidence.progress
    seconds = pace.of(evidence.lines, progress.attempt) or progress.seconds_per_step
    if not progress.max_steps or not seconds:
        return None
    return pace.training(progress.max_steps - progress.step, seconds)


def _health(run: Run, evidence: _Evidence) -> Health | None:
    if not evidence.lines:
        return None
    return health.judge(evidence.lines, run.record.stage, evidence.progress.max_steps)


def _lock_is_held(path: Path) -> bool:
    try:
        with path.open("rb") as f:
            fcntl.flock(f, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
