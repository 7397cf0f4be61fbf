"""What Slurm knows about our jobs: one squeue and at most one sacct for any number of them and of terminals."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from clusterctl.adapters import process
from clusterctl.adapters import slurm_text as text
from clusterctl.adapters.slurm_cache import Known, Sighting, SlurmCache
from clusterctl.adapters.slurm_commands import ANSWER_WITHIN, DOWN_HINT, Commands, soon
from clusterctl.adapters.slurm_words import refusal
from clusterctl.errors import Unavailable
from clusterctl.model import Job, JobRef, JobState

_LOCK_PATIENCE = 7.0
_FIND_AGE = 1.0
"""Seconds. That a job is not there is believed of a fresh answer only; a second lets several searches share one."""

_ACCOUNTING_OFF_FOR = 3600.0
"""Seconds for which we believe that a cluster without accounting still has none."""

_FIND_RECORDS_AGE = 30.0
"""Seconds until accounting is searched again; one search serves all tokens."""

_RECORD_AGE_FACTOR = 6.0
"""Accounting is asked this much less often than the queue: what left the queue changes no more."""

_MAY_GO_ON = frozenset({JobState.PREEMPTED, JobState.NODE_FAIL})
"""Ends of a record that Slurm may follow with a requeue of the same job."""


class SlurmJobs:
    """The jobs of this user. ``warnings`` says in sentences what the last answer could not take into account."""

    def __init__(self, commands: Commands) -> None:
        self.warnings: list[str] = []
        self._commands = commands
        self._cache = SlurmCache()
        self._user = process.own_user()

    def note_change(self) -> None:
        """We have submitted or cancelled: answers from before this moment are out of date, in every terminal."""
        self._cache.note_change()

    def jobs(self, refs: Sequence[JobRef], max_age: float) -> dict[str, Job]:
        """The jobs that Slurm knows, by token, no older than ``max_age`` seconds.

        A job that squeue has forgotten is absent while accounting still calls it running: accounting lags.

        Raises:
            Unavailable: slurmctld did not answer.
        """
        asked_at, deadline = time.time(), soon(ANSWER_WITHIN)
        newest_ref = max((ref.submitted_at for ref in refs if ref.submitted_at <= asked_at), default=0.0)
        oldest = max(asked_at - max_age, newest_ref, self._cache.changed_at())
        with self._shared(deadline) as known:
            self._refresh_queue(known, oldest, deadline)
            found = self._in_queue(known, refs)
            gone = [ref for ref in refs if ref.token not in found]
            self._refresh_records(known, gone, asked_at - max_age * _RECORD_AGE_FACTOR, deadline)
            found |= self._in_accounting(known, gone)
            _remember(known, found)
        self.warnings = []
        if known.accounting_problem and len(found) < len(refs):
            self.warnings.append(f"jobs that have ended may be missing, sacct failed: {known.accounting_problem}")
        return found

    def last_seen(self, ref: JobRef) -> tuple[JobState, float] | None:
        """The last state in which anyone on this machine saw the job, and when. Asks nobody."""
        sighting = self._cache.load().sightings.get(ref.token)
        if sighting is None or sighting.state is JobState.UNKNOWN:
            return None
        return sighting.state, sighting.seen_at

    def find_in_queue(self, token: str, deadline: float) -> str | None:
        """The id of the job with this token, of those that squeue shows.

        Raises:
            Unavailable: slurmctld did not answer.
        """
        oldest = max(time.time() - _FIND_AGE, self._cache.changed_at())
        with self._shared(deadline) as known:
            self._refresh_queue(known, oldest, deadline)
        lines = (line for line in text.split_lines(known.queue) if text.comment_of(token) in line)
        rows = (text.parse_queue_line(line) for line in lines)
        return next((row.job.job_id for row in rows if row and row.token == token), None)

    def find_in_accounting(self, token: str, deadline: float) -> str | None:
        """The id of the job with this token, where accounting keeps comments; looks a month back.

        Raises:
            Unavailable: accounting did not answer.
        """
        with self._shared(deadline) as known:
            now = time.time()
            if known.accounting_off_at > now - _ACCOUNTING_OFF_FOR:
                return None
            if not now - _FIND_RECORDS_AGE < known.searched_at <= now:
                lines = self._ask_accounting(known, ["-S", "now-30days"], deadline)
                if known.accounting_problem:
                    raise Unavailable(f"sacct: {known.accounting_problem}", hint=DOWN_HINT)
                known.searched = "\n".join(line for line in lines if text.COMMENT_PREFIX in line)
                known.searched_at = now
        ours = (line for line in text.split_lines(known.searched) if text.comment_of(token) in line)
        rows = (text.parse_record_line(line) for line in ours)
        return next((row.job.job_id for row in rows if row and row.token == token), None)

    # --- the queue ----------------------------------------------------------------------------

    @contextlib.contextmanager
    def _shared(self, deadline: float) -> Iterator[Known]:
        """What all terminals know, held still until the block has added to it."""
        with self._cache.locked(min(_LOCK_PATIENCE, deadline - time.monotonic())):
            known = self._cache.load()
            before = replace(known, sightings={token: replace(s) for token, s in known.sightings.items()})
            try:
                yield known
            finally:
                if known != before:
                    self._cache.save(known)

    def _refresh_queue(self, known: Known, oldest: float, deadline: float) -> None:
        """Ask squeue, unless an answer, or a failure to answer, is newer than ``oldest``."""
        now = time.time()
        if max(oldest, known.taken_at) < known.failed_at <= now:
            raise Unavailable(known.failure, hint=DOWN_HINT)
        if oldest < known.taken_at <= now:
            return
        try:
            self._commands.require_controller(deadline)
            done = self._commands.ask(["squeue", "--me", "-h", "-r", "-t", "all", "-O", text.QUEUE_FORMAT], deadline)
            if done.returncode != 0:
                raise Unavailable(f"squeue: {refusal(done.stderr)}", hint=DOWN_HINT)
        except Unavailable as e:
            known.failure, known.failed_at = e.message, time.time()
            raise
        known.queue, known.taken_at = done.stdout, now

    def _in_queue(self, known: Known, refs: Sequence[JobRef]) -> dict[str, Job]:
        lines = {line.partition(text.SEPARATOR)[0]: line for line in text.split_lines(known.queue)}
        rows = ((ref, text.parse_queue_line(lines.get(ref.job_id, ""))) for ref in refs)
        return {ref.token: row.job for ref, row in rows if row and row.belongs_to(ref, self._user)}

    # --- accounting ---------------------------------------------------------------------------

    def _refresh_records(self, known: Known, refs: Sequence[JobRef], oldest: float, deadline: float) -> None:
        """Ask sacct about those whose end is not known for good and about which it was not asked lately."""
        now = time.time()
        if known.accounting_off_at > now - _ACCOUNTING_OFF_FOR:
            return
        wanted = []
        for ref in refs:
            sighting = known.sightings.setdefault(ref.token, Sighting())
            record = self._newest_record(sighting, ref)
            if sighting.asked_at <= oldest and not (record and _is_last_word(record.job.state)):
                wanted.append((ref, sighting))
        if not wanted:
            return
        lines = self._ask_accounting(known, ["-j", ",".join(sorted({ref.job_id for ref, _ in wanted}))], deadline)
        rows = [(line, row) for line in lines if (row := text.parse_record_line(line))]
        for ref, sighting in wanted:
            sighting.asked_at = now
            if not known.accounting_problem:
                sighting.record = "\n".join(line for line, row in rows if row.belongs_to(ref, self._user))

    def _in_accounting(self, known: Known, refs: Sequence[JobRef]) -> dict[str, Job]:
        records = ((ref, self._newest_record(known.sightings.get(ref.token, Sighting()), ref)) for ref in refs)
        return {ref.token: record.job for ref, record in records if record and record.job.state.final}

    def _newest_record(self, sighting: Sighting, ref: JobRef) -> text.Row | None:
        rows = (text.parse_record_line(line) for line in text.split_lines(sighting.record))
        return text.newest_record(row for row in rows if row and row.belongs_to(ref, self._user))

    def _ask_accounting(self, known: Known, which: Sequence[str], deadline: float) -> list[str]:
        """Lines of sacct. Why there are none is left in ``known``: switched off, or a problem that may pass."""
        argv = ["sacct", "-n", "-X", "-D", "-P", "--noconvert", "-u", self._user, f"--delimiter={text.SEPARATOR}"]
        known.accounting_problem = ""
        try:
            done = self._commands.ask([*argv, "-o", text.RECORD_FORMAT, *which], deadline)
        except process.TimedOut as e:
            known.accounting_problem = e.message
            return []
        except Unavailable:  # sacct is not installed
            known.accounting_off_at = time.time()
            return []
        if done.returncode == 0:
            return text.split_lines(done.stdout)
        if "disabled" in done.stderr:
            known.accounting_off_at = time.time()
        else:
            known.accounting_problem = refusal(done.stderr)
        return []


def _is_last_word(state: JobState) -> bool:
    """Nothing can happen any more to a job that has left the queue and whose record ends like this."""
    return state.final and state not in _MAY_GO_ON


def _remember(known: Known, jobs: Mapping[str, Job]) -> None:
    for token, job in jobs.items():
        if job.state is not JobState.UNKNOWN:
            sighting = known.sightings.setdefault(token, Sighting())
            sighting.state = job.state
            sighting.seen_at = known.taken_at if job.source == "squeue" else sighting.asked_at
