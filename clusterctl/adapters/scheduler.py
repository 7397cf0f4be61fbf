"""What a scheduler can do for us. Two modules do it: ``slurm`` and ``local``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from clusterctl.model import Job, JobRef, JobState, SchedulerName, Submission


class Scheduler(Protocol):
    """The things that the use cases need."""

    @property
    def name(self) -> SchedulerName: ...

    @property
    def warnings(self) -> Sequence[str]:
        """What the last ``jobs`` could not take into account, in sentences."""
        ...

    def submit(self, submission: Submission) -> str:
        """Hand the run over and return its job id. Never leaves a doubt behind: when the answer was lost,
        the queue is asked for the token before anything is said.

        Raises:
            Rejected: the scheduler refused, in its own words; nothing was queued.
            Unavailable: nobody answered and it is not known whether the job was queued.
        """
        ...

    def find(self, token: str) -> str | None:
        """The job id of the hand-over with this token, or None when the queue does not hold it.

        Raises:
            Unavailable: the queue did not answer, so absence proves nothing.
        """
        ...

    def jobs(self, refs: Sequence[JobRef], *, max_age: float = 5.0) -> Mapping[str, Job]:
        """The jobs that the scheduler still knows, by token (ids are recycled): one squeue and one sacct for all.

        An answer up to ``max_age`` seconds old (shared between terminals) is good enough. A job that
        nobody knows any more is absent: the caller must not call it finished.

        Raises:
            Unavailable: the scheduler did not answer.
        """
        ...

    def last_seen(self, ref: JobRef) -> tuple[JobState, float] | None:
        """State and time of the last answer in which the job still occurred, if any was kept."""
        ...

    def cancel(self, refs: Sequence[JobRef]) -> None:
        """Cancel jobs, waiting or running. Ended ones are left alone.

        Raises:
            Rejected: they are not ours.
            Unavailable: the scheduler did not answer.
        """
        ...
