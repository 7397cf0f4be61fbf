"""Slurm as a scheduler. Every answer comes within ``ANSWER_WITHIN`` seconds, also when slurmctld is down or hangs."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from clusterctl.adapters import process, slurm_cluster, slurm_live
from clusterctl.adapters import slurm_text as text
from clusterctl.adapters.slurm_commands import ANSWER_WITHIN, DOWN_HINT, PING_TIMEOUT, Commands, soon
from clusterctl.adapters.slurm_jobs import SlurmJobs
from clusterctl.adapters.slurm_starts import SlurmStarts
from clusterctl.adapters.slurm_words import hint_for, is_ambiguous, refusal
from clusterctl.cluster import GpuJob, JobUse
from clusterctl.errors import Rejected, Unavailable, UsageProblem
from clusterctl.hardware import Node
from clusterctl.model import Job, JobRef, JobState, QueueStart, Resources, SchedulerName, Submission


def available() -> bool:
    """Slurm's commands are here and know a cluster. True also while it is down: then nothing else will do."""
    if shutil.which("sbatch") is None:
        return False
    if os.environ.get("SLURM_CONF"):
        return True
    try:
        done = Commands().ask(["scontrol", "ping"], soon(PING_TIMEOUT))
    except Unavailable:
        return True
    return "configuration source" not in done.stderr


def check_run_dir(run_dir: Path) -> None:
    """Slurm replaces '%' and drops backslashes in the path of an output file; there is no way to quote them.

    Raises:
        UsageProblem: the path holds such a character.
    """
    if bad := [character for character in "%\\" if character in str(run_dir)]:
        raise UsageProblem(
            f"Slurm cannot write into a folder with {bad[0]} in its path: {run_dir}",
            hint="choose another output root or run name",
        )


class Slurm:
    """The cluster that the environment points to."""

    name: SchedulerName = "slurm"

    def __init__(self) -> None:
        self._commands = Commands()
        self._jobs = SlurmJobs(self._commands)

    @property
    def calls(self) -> list[str]:
        """The names of Slurm's commands that were run, in order."""
        return self._commands.calls

    @property
    def warnings(self) -> list[str]:
        """What the last ``jobs`` could not take into account, in sentences."""
        return self._jobs.warnings

    def submit(self, submission: Submission) -> str:
        """Queue ``job.sh`` of the run directory and return the job id. sbatch is called once, whatever happens.

        Raises:
            UsageProblem: Slurm could not write the output there.
            Rejected: Slurm refused, in its own words.
            Unavailable: nobody answered. The message says whether the job may have been queued.
        """
        check_run_dir(submission.run_dir)
        if shutil.which("sbatch") is None:
            raise Unavailable("sbatch is not installed here (not on PATH)", hint="--scheduler local does without it")
        deadline = soon(ANSWER_WITHIN)
        try:
            self._commands.require_controller(deadline)
        except Unavailable as e:
            raise Unavailable(f"{e.message}; nothing was submitted", hint=e.hint) from e
        options = [f"--comment={text.COMMENT_PREFIX}:{submission.run_id}:{submission.token}"]
        if submission.after:
            # Without the second option a job whose parent failed would stay in the queue for ever.
            options += [f"--dependency=afterok:{':'.join(submission.after)}", "--kill-on-invalid-dep=yes"]
        if submission.tasks:
            options.append(f"--array={text.array(submission.tasks, submission.parallel)}")
        try:
            done = self._commands.sbatch(options, deadline - PING_TIMEOUT, submission.run_dir)
        except process.TimedOut as e:
            done = process.Finished(-1, "", e.message)
        finally:
            self._jobs.note_change()
        if done.returncode == 0 and (job_id := text.parse_submitted(done.stdout)):
            return job_id
        problem = refusal(done.stderr)
        if done.returncode <= 0 or is_ambiguous(problem):
            return self._look_for(submission, problem, deadline)
        raise self._refused(problem)

    def _look_for(self, submission: Submission, problem: str, deadline: float) -> str:
        """sbatch failed on the way: the job may be queued all the same. Only seeing it there is an answer."""
        token = f"{submission.token}.{submission.tasks[0]}" if submission.tasks else submission.token
        with contextlib.suppress(Unavailable):
            if job_id := self._jobs.find_in_queue(token, deadline):
                return job_id.partition("_")[0]
        raise Unavailable(
            f"{problem}; it is not known whether the job was queued",
            hint=f"do not submit again: `clusterctl status {submission.run_id}` will find out",
            maybe_queued=True,
        )

    def _refused(self, message: str) -> Rejected:
        hint = hint_for(message)
        if "invalid partition" in message.lower():
            hint = f"partitions here: {', '.join(self._partitions()) or 'none'}"
        return Rejected(f"Slurm refused the job: {message}", hint=hint)

    def find(self, token: str) -> str | None:
        """The job id of the hand-over with this token, in the queue or in accounting that keeps comments.

        Raises:
            Unavailable: Slurm did not answer, so absence proves nothing.
        """
        deadline = soon(ANSWER_WITHIN)
        return self._jobs.find_in_queue(token, deadline) or self._jobs.find_in_accounting(token, deadline)

    def jobs(self, refs: Sequence[JobRef], *, max_age: float = 5.0) -> Mapping[str, Job]:
        """What Slurm knows of these jobs, by token: one squeue, and one sacct for what has left the queue.

        Raises:
            Unavailable: slurmctld did not answer.
        """
        return self._jobs.jobs(refs, max_age) if refs else {}

    def last_seen(self, ref: JobRef) -> tuple[JobState, float] | None:
        """The last state in which anyone on this machine saw the job, and when. Asks nobody."""
        return self._jobs.last_seen(ref)

    def cancel(self, refs: Sequence[JobRef]) -> None:
        """Cancel those of the jobs that are ours and have not ended.

        Raises:
            Rejected: Slurm refused.
            Unavailable: Slurm did not answer.
        """
        jobs = self.jobs(refs, max_age=0)
        ids = [ref.job_id for ref in refs if ref.token in jobs and jobs[ref.token].state.active]
        if not ids:
            return
        deadline = soon(ANSWER_WITHIN)
        # job.sh requeues itself when it is told to stop, and Slurm would let a cancelled job do so.
        self._commands.ask(["scontrol", "update", f"jobid={','.join(ids)}", "requeue=0"], deadline)
        done = self._commands.ask(["scancel", *ids], deadline)
        self._jobs.note_change()
        if done.returncode == 0:
            return
        message = refusal(done.stderr)
        if is_ambiguous(message):
            raise Unavailable(f"scancel: {message}", hint=DOWN_HINT)
        raise Rejected(f"Slurm refused to cancel: {message}", hint=hint_for(message))

    def nodes(self) -> tuple[Node, ...]:
        """The nodes of the cluster with their GPUs.

        Raises:
            Unavailable: Slurm did not answer.
        """
        deadline = soon(ANSWER_WITHIN)
        self._commands.require_controller(deadline)
        done = self._commands.ask(["sinfo", "-h", "-N", "-O", text.NODE_FORMAT], deadline)
        if done.returncode != 0:
            raise Unavailable(f"sinfo: {refusal(done.stderr)}", hint=DOWN_HINT)
        return text.parse_nodes(done.stdout)

    def test_start(self, resources: Resources) -> QueueStart:
        """When Slurm would start such a job: an estimate, at most a minute old. Unknown where it does not answer."""
        return SlurmStarts(self._commands).ask(resources)

    def gpu_jobs(self) -> tuple[GpuJob, ...]:
        """Everybody's jobs with GPUs, running and waiting, as far as the site shows them.

        Raises:
            Unavailable: Slurm did not answer.
        """
        return slurm_cluster.gpu_jobs(self._commands)

    def live_use(self, jobs: Sequence[GpuJob]) -> tuple[JobUse, ...]:
        """What the GPUs of the own ones of these jobs do just now, asked inside the jobs."""
        return slurm_live.live_use(jobs, self._commands)

    def _partitions(self) -> list[str]:
        with contextlib.suppress(Unavailable):
            return sorted(set(self._commands.ask(["sinfo", "-h", "-o", "%R"], soon(PING_TIMEOUT)).stdout.split()))
        return []
