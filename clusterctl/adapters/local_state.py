"""What has become of a local job, from its ``local.json`` and from /proc. Derived at every look, never a guess."""

from __future__ import annotations

from pathlib import Path

from clusterctl.adapters import local_job, procfs
from clusterctl.adapters.local_job import LocalJob
from clusterctl.adapters.store import read_attempts
from clusterctl.errors import NotFound
from clusterctl.model import Job, JobState


def look(run_dir: Path, job_id: str, token: str) -> Job | None:
    """The job as it is now; None when the run directory knows nothing of it."""
    try:
        job = local_job.read(run_dir)
        while job is not None and job.token == token:
            seen = _derive(run_dir, job)
            # The runner may have written the end and gone after we read: believe what did not change meanwhile.
            again = local_job.read(run_dir)
            if again == job:
                return seen
            job = again
    except local_job.Unreadable as e:
        return Job(job_id, JobState.UNKNOWN, str(e), source="local")
    return None


def look_up(job_id: str) -> Job:
    """The job as it is now, by its id alone.

    Raises:
        NotFound: there is no such job, or its run directory is gone or has another job now.
    """
    entry = local_job.entry(job_id)
    job = look(entry.run_dir, job_id, entry.token)
    if job is None:
        raise NotFound(f"nothing is left of {job_id} in {entry.run_dir}", hint="clusterctl status --all lists the runs")
    return job


def out_of_sight(job: LocalJob) -> str:
    """Why the processes of this job cannot be seen from here, or nothing."""
    here = procfs.here()
    if job.place.host != here.host:
        return f"runs on host {job.place.host}, which only that host can tell more about"
    if job.place.boot_id == here.boot_id and job.place.pid_namespace != here.pid_namespace:
        return f"runs in another container of {here.host}"
    return ""


def _derive(run_dir: Path, job: LocalJob) -> Job:
    if job.phase == "ended":
        return _job(job, job.state or JobState.UNKNOWN, job.reason)
    if elsewhere := out_of_sight(job):
        return _job(job, JobState.UNKNOWN, elsewhere)
    if job.place.boot_id != procfs.here().boot_id:
        return _told_end(run_dir, job) or _job(job, JobState.NODE_FAIL, "the machine was restarted meanwhile")
    if procfs.alive(job.runner):
        return _job(job, JobState.RUNNING if job.phase == "running" else JobState.PENDING, job.reason)
    if procfs.job_processes(job.token):
        return _job(job, JobState.RUNNING, "its runner was killed: no time limit and no requeue any more")
    return _told_end(run_dir, job) or _job(job, JobState.FAILED, _SILENT_ENDS[job.phase])


_SILENT_ENDS = {
    "submitted": "never started: submitting was interrupted",
    "waiting": "killed: its runner ended without a word while the job waited",
    "running": "killed: runner and job ended without a word",
}
"""All processes are proven gone, and nobody recorded an end."""


def _told_end(run_dir: Path, job: LocalJob) -> Job | None:
    """The end that ``job.sh`` itself recorded, when its runner could not."""
    attempts = read_attempts(run_dir)
    if not attempts or attempts[-1].job_id != job.job_id or attempts[-1].ended_at is None:
        return None
    last = attempts[-1]
    if last.decision == "done":
        state, why = JobState.COMPLETED, ""
    elif last.decision == "requeue":
        state, why = JobState.FAILED, "saved, but its runner was killed and could not start it again"
    else:
        state, why = JobState.FAILED, last.why
    return _job(job, state, why, exit_code=last.exit_code, ended_at=last.ended_at)


def _job(
    job: LocalJob, state: JobState, reason: str, exit_code: int | None = None, ended_at: float | None = None
) -> Job:
    return Job(
        job_id=job.job_id,
        state=state,
        reason=reason,
        exit_code=job.exit_code if exit_code is None else exit_code,
        signal=job.signal,
        where=job.place.host,
        submitted_at=job.submitted_at,
        started_at=job.started_at,
        ended_at=job.ended_at or ended_at,
        time_limit=job.resources.time_limit,
        restarts=job.restarts,
        source="local",
    )
