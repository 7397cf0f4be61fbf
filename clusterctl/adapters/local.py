"""The scheduler of a machine without Slurm: each job has a process of its own that waits, runs and watches it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import clusterctl
from clusterctl.adapters import local_job, local_state, procfs
from clusterctl.adapters.local_job import LocalJob
from clusterctl.adapters.process import start_detached
from clusterctl.adapters.signals import CANCEL
from clusterctl.errors import ClusterctlError, NoFit, NotFound, Rejected, Unavailable
from clusterctl.model import Job, JobRef, JobState, Resources, SchedulerName, Submission

KILL_WAIT = 30.0
"""Seconds from TERM to KILL at the time limit. Slurm's KillWait is 30 by default (slurm.conf(5))."""

CANCEL_GRACE = 5.0
"""Seconds from TERM to KILL for a cancelled job, and for what a job leaves behind."""

_START_TIMEOUT = 60.0
"""Seconds for the runner to begin: Python on a slow network file system takes ten."""

_RUNNER_MARGIN = 15.0
"""Seconds beyond the grace for a runner to cancel its job: it waits up to 10 for processes that are slow to die."""


class Local:
    """Jobs of this user on this machine. As ``Scheduler`` says; what differs from there stands below."""

    name: SchedulerName = "local"
    warnings: Sequence[str] = ()

    def __init__(self, *, kill_wait: float = KILL_WAIT, cancel_grace: float = CANCEL_GRACE) -> None:
        self._kill_wait = kill_wait
        self._cancel_grace = cancel_grace

    def submit(self, submission: Submission) -> str:
        """Start the job's runner; the id comes back once it has begun.

        Raises:
            NoFit: this machine can never hold the job.
            Rejected: the run is still active, a job that it should follow does not exist, or the runner failed.
            Unavailable: no GPU driver, or no place for records or leases.
        """
        run_dir = submission.run_dir.resolve()
        previous = _refuse_active(run_dir)
        _refuse_unknown(submission.after)
        _refuse_unfit(submission.resources)
        job_id = local_job.register(submission.token, run_dir)
        job = LocalJob(
            job_id=job_id,
            token=submission.token,
            name=submission.name,
            place=procfs.here(),
            submitted_at=time.time(),
            resources=submission.resources,
            after=submission.after,
            kill_wait=self._kill_wait,
            cancel_grace=self._cancel_grace,
            runner=procfs.myself(),
            reason="starting",
            sweep=submission.sweep,
            parallel=submission.parallel,
        )
        try:
            local_job.write(run_dir, job)
            _start(run_dir, job)
        except ClusterctlError:
            local_job.unregister(job_id)
            if previous is not None:
                local_job.write(run_dir, previous)
            else:
                (run_dir / local_job.FILE).unlink(missing_ok=True)
            raise
        return job_id

    def find(self, token: str) -> str | None:
        """The id of the job with this token."""
        return local_job.find(token)

    def jobs(self, refs: Sequence[JobRef], *, max_age: float = 5.0) -> Mapping[str, Job]:
        """The jobs as their run directories and /proc show them. Always fresh: looking costs nothing."""
        seen = {ref.token: local_state.look(ref.run_dir, ref.job_id, ref.token) for ref in refs}
        return {token: job for token, job in seen.items() if job is not None}

    def last_seen(self, ref: JobRef) -> tuple[JobState, float] | None:
        """Nothing: what this machine does not know now, it never knew."""
        return None

    def cancel(self, refs: Sequence[JobRef]) -> None:
        """End jobs with all their processes, and come back when they have ended.

        Raises:
            Rejected: they are another user's.
            Unavailable: one runs on another machine, or has processes that cannot be killed.
        """
        living = [ref for ref in refs if not _is_over(ref)]
        for ref in living:
            _ask_to_end(ref)
            _note_in_log(ref)
        for ref in living:
            self._see_it_end(ref)

    def _see_it_end(self, ref: JobRef) -> None:
        deadline = time.monotonic() + self._cancel_grace + _RUNNER_MARGIN
        while time.monotonic() < deadline and _ask_to_end(ref):
            if _is_over(ref):
                return
            time.sleep(0.1)
        if not _is_over(ref):
            self._end_by_force(ref)

    def _end_by_force(self, ref: JobRef) -> None:
        """End a job whose runner is dead or does not listen."""
        job = _read(ref)
        if job is not None and job.phase != "submitted":
            procfs.send(job.runner, signal.SIGKILL)
        if survivors := procfs.end_all(ref.token, grace=self._cancel_grace):
            pids = ", ".join(str(process.pid) for process in survivors)
            raise Unavailable(
                f"{ref.job_id} has processes that cannot be killed: {pids}",
                hint="they wait for a dead disk or GPU, or belong to another user: ask the administrator",
            )
        if job is not None:
            reason = "cancelled; its runner had been killed"
            local_job.write(
                ref.run_dir,
                replace(job, phase="ended", state=JobState.CANCELLED, reason=reason, ended_at=time.time()),
            )


# --- submitting -------------------------------------------------------------------------------


def _refuse_active(run_dir: Path) -> LocalJob | None:
    """The job that the run directory had before, which must have ended."""
    try:
        previous = local_job.read(run_dir)
    except local_job.Unreadable as e:
        hint = f"nobody knows whether it still runs: look with `ps`, then remove {run_dir / local_job.FILE}"
        raise Rejected(str(e), hint=hint) from e
    if previous is not None:
        job = local_state.look(run_dir, previous.job_id, previous.token)
        if job is not None and not job.state.final:
            raise Rejected(
                f"this run is {job.job_id}, which is {job.state}{job.reason and f' ({job.reason})'}",
                hint=f"wait for it, or end it: clusterctl cancel {job.job_id}",
            )
    return previous


def _refuse_unknown(after: Sequence[str]) -> None:
    for job_id in after:
        try:
            local_state.look_up(job_id)
        except NotFound as e:
            raise Rejected(f"the job that this one should follow is not known: {e.message}", hint=e.hint) from e


def _refuse_unfit(resources: Resources) -> None:
    """What can never be had is refused now, not left waiting for ever."""
    if resources.nodes > 1:
        raise NoFit(
            f"{resources.nodes} nodes wanted, and without Slurm there is only this machine",
            hint="use a profile with one node",
        )
    if not resources.gpus_per_node and not resources.gpu_ids:
        return
    from clusterctl.adapters.choose_gpus import candidates, visible
    from clusterctl.adapters.leases import Leases, lease_dir
    from clusterctl.adapters.nvml import machine

    Leases(lease_dir()).close()
    mask = os.environ.get("CUDA_VISIBLE_DEVICES")
    try:
        candidates(visible(machine().gpus, mask), resources)
    except NoFit as e:
        if mask is None:
            raise
        raise NoFit(e.message, hint=f"CUDA_VISIBLE_DEVICES={mask} hides the others from your jobs: unset it") from e


def _start(run_dir: Path, job: LocalJob) -> None:
    """Start the runner and wait until it says that it has begun."""
    log = run_dir / local_job.RUNNER_LOG
    try:
        log.parent.mkdir(exist_ok=True)
        pid = start_detached(
            [sys.executable, "-m", "clusterctl.adapters.local_runner", str(run_dir)],
            # Python finds the package here also when it is not installed.
            cwd=Path(clusterctl.__file__).parents[1],
            env=_environment(job),
            stdout=log,
        )
    except OSError as e:
        raise Unavailable(f"the local runner could not be started: {e}", hint=f"look at {log}") from e
    runner = procfs.identify(pid)
    deadline = time.monotonic() + _START_TIMEOUT
    while True:
        running = runner is not None and procfs.alive(runner)
        now = local_job.read(run_dir)
        if now is not None and now.phase != "submitted":
            return
        if not running:
            raise Rejected(f"the local runner could not start: {_last_line(log)}", hint=f"look at {log}")
        if time.monotonic() > deadline:
            raise Unavailable(f"the local runner did not begin within {_START_TIMEOUT:.0f} s", hint=f"look at {log}")
        time.sleep(0.05)


def _environment(job: LocalJob) -> dict[str, str]:
    """Ours, as with sbatch, but nothing of a Slurm job that we may be in: job.sh would take itself for one."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    return {**ours, "CLUSTERCTL_JOB_ID": job.job_id, procfs.JOB_VARIABLE: job.token}


def _last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "it left no message")


# --- cancelling -------------------------------------------------------------------------------


def _is_over(ref: JobRef) -> bool:
    job = local_state.look(ref.run_dir, ref.job_id, ref.token)
    return job is None or job.state.final


def _note_in_log(ref: JobRef) -> None:
    """In the words of Slurm, for whoever asks later why a job that was killed said nothing."""
    path = ref.run_dir / "logs/job.err"
    if path.exists():
        with contextlib.suppress(OSError), path.open("a", encoding="utf-8") as log:
            when = time.strftime("%Y-%m-%dT%H:%M:%S")
            log.write(f"clusterctl: *** JOB {ref.job_id} ON {socket.gethostname()} CANCELLED AT {when} ***\n")


def _ask_to_end(ref: JobRef) -> bool:
    """Ask the runner to cancel its job; asking twice does no harm. False when there is nobody to ask."""
    job = _read(ref)
    if job is None:
        return False
    if elsewhere := local_state.out_of_sight(job):
        raise Unavailable(f"{ref.job_id} {elsewhere}", hint="cancel it there")
    try:
        if job.phase != "submitted":
            procfs.send(job.runner, CANCEL)
            procfs.send(job.runner, signal.SIGCONT)
    except PermissionError as e:
        raise Rejected(f"{ref.job_id} belongs to another user", hint="only its owner can cancel it") from e
    return procfs.alive(job.runner)


def _read(ref: JobRef) -> LocalJob | None:
    try:
        return local_job.read(ref.run_dir)
    except local_job.Unreadable:
        return None
