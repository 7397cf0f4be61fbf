"""The process behind a local job: ``python -m clusterctl.adapters.local_runner RUN_DIR``.

It lives in a session of its own, waits for what the job waits for, runs ``job.sh``, keeps its time limit, runs it
again when it asks for that, and ends whatever the job leaves behind. Signals to it: USR2 cancels the job; TERM
(which machines send when they shut down) lets it save and end.

It works in the run directory by relative paths, and so survives that the directory is moved.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clusterctl.adapters import local_job, local_state, places, procfs
from clusterctl.adapters.gpu_queue import GpuQueue, Taken
from clusterctl.adapters.process import start_detached
from clusterctl.adapters.signals import Signals
from clusterctl.adapters.store import read_attempts
from clusterctl.errors import ClusterctlError, NotFound, Unavailable
from clusterctl.model import JobState
from trainers import notify

RUN_ME_AGAIN = 85
"""Exit code of ``job.sh`` (from ``trainers.guard``): saved, continue me."""

_MAX_RESTARTS = 100
"""The guard in job.sh ends crash loops; this ends a job whose guard does not."""

_POLL = 1.0
"""Seconds between two looks while waiting. A running job costs nothing: the runner sleeps until a signal."""

_LAST_WORD_TRIES = 60
_LAST_WORD_INTERVAL = 10.0
"""Tries, and seconds between them, to record how a job ended while the disk is full."""

_TOLD_TO_END = "its runner was told to end (SIGTERM), as when a machine shuts down"

_RUN_DIR = Path()


@dataclass(frozen=True)
class End:
    """How a job, or one attempt of it, ended. ``exit_code`` is the shell's, None when a signal ended it."""

    state: JobState
    reason: str = ""
    exit_code: int | None = None
    signal: int | None = None


class Runner:
    """One job from its submission to its end."""

    def __init__(self, job: local_job.LocalJob, signals: Signals) -> None:
        self.job = job
        self.signals = signals
        self.wanted = job.resources

    def run(self) -> None:
        """Bring the job to its end and record it.

        Raises:
            Unavailable: not even the start could be recorded; nothing was begun.
        """
        local_job.write(_RUN_DIR, self.job)
        end = self._wait_for_dependencies() or self._attempts()
        ended: dict[str, Any] = {
            "phase": "ended",
            "state": end.state,
            "reason": end.reason,
            "exit_code": end.exit_code,
            "signal": end.signal,
            "ended_at": time.time(),
        }
        for _ in range(_LAST_WORD_TRIES):
            if self._save(**ended):
                break
            self.signals.wait(_LAST_WORD_INTERVAL)
        self._tell(end)

    def _tell(self, end: End) -> None:
        """Tell of an end that the guard in job.sh has not told, since it was killed or never began."""
        attempts = [one for one in read_attempts(_RUN_DIR) if one.job_id == self.job.job_id]
        told = bool(attempts) and attempts[-1].ended_at is not None
        if end.state is JobState.COMPLETED or self.signals.cancelled or told:
            return
        said = notify.send(_RUN_DIR, "failed", job_id=self.job.job_id, why=end.reason, exit_code=end.exit_code)
        if said:
            sys.stderr.write(f"{said}\n")

    def _save(self, **changes: Any) -> bool:
        """Record what changed. A full disk does not end a job: it is told in the log, and the work goes on."""
        self.job = replace(self.job, **changes)
        try:
            local_job.write(_RUN_DIR, self.job)
        except Unavailable as e:
            with contextlib.suppress(OSError):
                sys.stderr.write(f"{e.message}\n")
            return False
        return True

    # --- waiting ------------------------------------------------------------------------------

    def _wait_for_dependencies(self) -> End | None:
        """None when all have ended well."""
        for job_id in self.job.after:
            while True:
                try:
                    other = local_state.look_up(job_id)
                except NotFound as e:
                    return End(JobState.CANCELLED, f"DependencyNeverSatisfied: {e.message}")
                if other.state is JobState.COMPLETED:
                    break
                if other.state.final:
                    return End(JobState.CANCELLED, f"DependencyNeverSatisfied: {job_id} ended {other.state}")
                if end := self._wait(f"Dependency: {job_id} is {other.state}"):
                    return end
        return None

    def _wait_for_turn(self) -> Taken | End:
        """One of the places of its sweep, then GPUs."""
        place = self._wait_for_place()
        if isinstance(place, End):
            return place
        taken = self._wait_for_gpus()
        if isinstance(taken, End):
            Taken((), place).release()
            return taken
        return replace(taken, fds=(*taken.fds, *place))

    def _wait_for_place(self) -> tuple[int, ...] | End:
        if not self.job.sweep or not self.job.parallel:
            return ()
        folder = Path("..", self.job.sweep, "places")
        try:
            while (place := places.take(folder, self.job.parallel)) is None:
                if end := self._wait(f"waiting for other runs of {self.job.sweep}: {self.job.parallel} at a time"):
                    return end
        except Unavailable as e:
            return End(JobState.FAILED, e.message)
        return (place,)

    def _wait_for_gpus(self) -> Taken | End:
        if not self.wanted.gpus_per_node and not self.wanted.gpu_ids:
            return Taken((), ())
        try:
            queue = GpuQueue(self.wanted, holder=Path.cwd().name)
        except Unavailable as e:
            return End(JobState.FAILED, e.message)
        try:
            while isinstance(answer := queue.try_to_take(), str):
                if end := self._wait(answer):
                    return end
            return answer
        finally:
            queue.leave()

    def _wait(self, reason: str) -> End | None:
        """Wait a moment for something that has this reason. The end of the job when it was stopped."""
        if self.job.reason != reason:
            self._save(reason=reason)
        if self._stopped() is None:
            self.signals.wait(_POLL)
        return self._stopped()

    def _stopped(self) -> End | None:
        if self.signals.cancelled:
            return End(JobState.CANCELLED, "cancelled while it waited")
        if self.signals.told_to_end:
            return End(JobState.NODE_FAIL, _TOLD_TO_END)
        return None

    # --- running ------------------------------------------------------------------------------

    def _attempts(self) -> End:
        """Run ``job.sh`` as often as it asks for it. Each attempt waits in line again: others have their turn."""
        while True:
            taken = self._wait_for_turn()
            if isinstance(taken, End):
                return taken
            try:
                end = self._stopped() or self._attempt(taken)
            finally:
                taken.release()
            if end.state is not JobState.REQUEUED:
                return end
            if self.job.restarts == _MAX_RESTARTS:
                return replace(end, state=JobState.FAILED, reason=f"asked for more than {_MAX_RESTARTS} restarts")
            if taken.gpus and not self.wanted.gpu_ids:
                # What was planned for this type need not fit another one.
                self.wanted = replace(self.wanted, gpu_type=taken.gpus[0].gpu_type)
            self._save(phase="waiting", restarts=self.job.restarts + 1, gpus=())

    def _attempt(self, taken: Taken) -> End:
        """One run of ``job.sh``, of which nothing is left alive afterwards."""
        kills_before = procfs.memory_kills()
        uuids = tuple(gpu.uuid or "" for gpu in taken.gpus)
        try:
            pid = start_detached(
                ["bash", "job.sh"],
                cwd=_RUN_DIR,
                env={**os.environ, "CUDA_VISIBLE_DEVICES": ",".join(uuids), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
                stdout=_RUN_DIR / "logs/job.out",
                stderr=_RUN_DIR / "logs/job.err",
                pass_fds=taken.fds,
            )
        except OSError as e:
            return End(JobState.FAILED, f"job.sh could not be started: {e}")
        self._save(phase="running", reason="", gpus=uuids, started_at=time.time())
        end = self._watch(pid)
        survivors = procfs.end_all(self.job.token, grace=self.job.cancel_grace)
        notes = [end.reason] if end.reason else []
        if end.state is JobState.FAILED and procfs.memory_kills() > kills_before:
            notes.append("meanwhile this machine ran out of memory and killed processes")
        if survivors:
            notes.append(f"processes that cannot be killed: {', '.join(str(p.pid) for p in survivors)}")
        return replace(end, reason="; ".join(notes))

    def _watch(self, pid: int) -> End:
        """Wait for the shell, and keep the time limit: USR1, then TERM to the shell, at last KILL to all."""
        shell = procfs.identify(pid)
        limit, lead = self.job.resources.time_limit, self.job.resources.signal_lead
        begun = time.monotonic()
        due = deque([(begun + limit, signal.SIGTERM), (begun + limit + self.job.kill_wait, signal.SIGKILL)])
        if 0 < lead < limit:
            due.appendleft((begun + limit - lead, signal.SIGUSR1))
        sent: signal.Signals | None = None
        passed_on = False
        while (status := _reap().get(pid)) is None:
            if self.signals.cancelled:
                procfs.end_all(self.job.token, grace=self.job.cancel_grace)
            elif self.signals.told_to_end and not passed_on:
                passed_on = True
                _send(shell, signal.SIGTERM)
            elif due and time.monotonic() >= due[0][0]:
                _, sent = due.popleft()
                if sent is signal.SIGKILL:
                    procfs.end_all(self.job.token, grace=0)
                else:
                    _send(shell, sent)
            else:
                self.signals.wait(due[0][0] - time.monotonic() if due else None)
        return self._judge(os.waitstatus_to_exitcode(status), sent)

    def _judge(self, code: int, sent: signal.Signals | None) -> End:
        """What an exit code means after the signals that were sent. Negative: the shell died of a signal."""
        end = End(
            JobState.FAILED,
            f"exit code {code}" if code >= 0 else f"killed by signal {-code} ({signal.strsignal(-code)})",
            exit_code=code if code >= 0 else None,
            signal=-code if code < 0 else None,
        )
        if self.signals.cancelled:
            return replace(end, state=JobState.CANCELLED, reason="cancelled while it ran")
        if code == 0:
            return replace(end, state=JobState.COMPLETED, reason="")
        if self.signals.told_to_end:
            return replace(end, state=JobState.NODE_FAIL, reason=_TOLD_TO_END)
        if code == RUN_ME_AGAIN:
            return replace(end, state=JobState.REQUEUED)
        if sent in (signal.SIGTERM, signal.SIGKILL):
            return replace(end, state=JobState.TIMEOUT, reason="it reached its time limit")
        return end


def _send(process: procfs.Process | None, signum: int) -> None:
    if process is not None:
        procfs.send(process, signum)


def _reap() -> dict[int, int]:
    """The wait status of all children, own and adopted, that ended since the last call."""
    ended: dict[int, int] = {}
    with contextlib.suppress(ChildProcessError):
        while (child := os.waitpid(-1, os.WNOHANG))[0]:
            ended[child[0]] = child[1]
    return ended


def _adopt_orphans() -> None:
    """Become the parent of all descendants whose parent dies, so that none slips away (prctl(2))."""
    pr_set_child_subreaper = 36
    ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1, 0, 0, 0)


def main() -> None:
    """Run the job in the directory that the command line names."""
    os.chdir(sys.argv[1])
    signals = Signals()
    _adopt_orphans()
    job = local_job.read(_RUN_DIR)
    if job is None:
        sys.exit(f"there is no {local_job.FILE} in {sys.argv[1]}")
    try:
        Runner(replace(job, runner=procfs.myself(), phase="waiting"), signals).run()
    except ClusterctlError as e:
        sys.exit(e.message)


if __name__ == "__main__":
    main()
