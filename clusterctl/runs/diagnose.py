"""Why a run or a log ended: evidence from the scheduler, the run directory and the logs, and the table's answer."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from clusterctl.adapters import metrics, store
from clusterctl.adapters.slurm_words import explain_reason
from clusterctl.errors import NotFound, Unavailable
from clusterctl.model import JobState
from clusterctl.paths import is_file
from clusterctl.runs import health, status
from clusterctl.runs.find import Run
from clusterctl.settings import Settings
from clusterctl.status import Level, Status
from trainers.failures import diagnosis, search
from trainers.failures.diagnosis import Evidence, Finding
from trainers.failures.search import Line

LOGS = ("logs/job.err", "logs/job.out", "logs/runner.log")

NEVER = {
    "DependencyNeverSatisfied": "`clusterctl diagnose` of the run before it says why; cancel this one",
    "PartitionTimeLimit": "cancel it and ask for less time: --set profile.time=...",
    "PartitionNodeLimit": "cancel it and ask for fewer nodes",
    "BadConstraints": "cancel it and correct profile.constraint, type or number of GPUs: `clusterctl gpus`",
    "AccountNotAllowed": "cancel it and set another account or partition in the site file",
    "InvalidAccount": "cancel it and correct `account` in the site file",
    "InvalidQOS": "cancel it and correct `qos` in the site file",
    "JobHeldUser": "`scontrol release` lets it go on",
    "JobHeldAdmin": "ask an administrator: only they can release it",
    "PartitionConfig": "cancel it and ask for what the partition allows: `clusterctl doctor`",
    "QOSNotAllowed": "cancel it and set another `qos` or partition in the site file",
    "ReservationDeleted": "cancel it and submit it without the reservation",
    "job requeued in held state": "`scontrol release` lets it go on; who held it may say why",
    "launch failed requeued held": "`scontrol release` tries again; look at the node first",
    "QOSMaxWallDurationPerJobLimit": "cancel it and ask for less time: --set profile.time=...",
    "AssocMaxWallDurationPerJobLimit": "cancel it and ask for less time: --set profile.time=...",
}
"""Reasons for which a job waits until somebody does something, with what that is."""


MEMORY = ("cuda_out_of_memory", "host_out_of_memory")


@dataclass(frozen=True)
class Diagnosis:
    """``cause`` is a name of the table, ``healthy``, ``waiting``, ``pending_for_ever``, ``running`` or ``unknown``.

    Where logs say nothing it may be what the metrics show: ``diverging_loss``, ``flat_loss``, ``metrics`` for the rest;
    ``dependency`` where it never began.

    ``policy`` says what the job does by itself; empty where nothing failed.
    """

    subject: str
    cause: str
    title: str
    sure: str = ""
    file: Path | None = None
    line: int | None = None
    quote: str = ""
    remedy: str = ""
    policy: str = ""
    state: str = ""


def run(found: Run, settings: Settings) -> Diagnosis:
    """Diagnose a run by everything that it left.

    Raises:
        Unavailable: its logs cannot be searched.
    """
    [now] = status.look([found])
    name = found.record.run_id
    if now.state.waiting:
        return _waiting(name, now)
    if now.state is JobState.UNKNOWN:
        return Diagnosis(name, "unknown", f"it is not known what became of it: {now.why}", state=str(now.state))
    if now.state.active:
        shown = _by_metrics(found, now)
        return shown or Diagnosis(name, "running", "it runs; `clusterctl status` shows how", state=str(now.state))
    if waited := _never_began(found, now):
        return waited
    lines = [] if now.state is JobState.COMPLETED else _lines([found.run_dir / log for log in LOGS])
    finding = diagnosis.diagnose(lines, _evidence(found, now), search.went_on)
    if (finding is None or finding.cause.weight == "vague") and (shown := _by_metrics(found, now)):
        return shown
    told = _told(name, finding, state=str(now.state), run_id=name)
    if told.cause in MEMORY:
        from clusterctl.runs import fits

        better = fits.remedy(found, told.quote, settings)
        return replace(told, remedy=better or told.remedy)
    return told


def _never_began(found: Run, now: Status) -> Diagnosis | None:
    """A run that its scheduler gave up, as what it waited for did not end well; None for any other."""
    ours = (found.run_dir / status.CANCELLED).exists()
    if now.state is not JobState.CANCELLED or now.attempts or ours or not found.record.after:
        return None
    before = found.record.after[-1]
    remedy = f"`clusterctl diagnose {before}` says why; mend it, then `clusterctl resume` of both, that one first"
    title = f"it never began: {before}, which it waits for, did not end well"
    return Diagnosis(found.record.run_id, "dependency", title, "likely", remedy=remedy, state=str(now.state))


def _by_metrics(found: Run, now: Status) -> Diagnosis | None:
    """What the metrics show, where that is trouble; None where they show none, or are none."""
    lines = metrics.whole(found.run_dir)
    verdict = health.judge(lines, found.record.stage, now.progress.max_steps) if lines else None
    if verdict is None or verdict.level not in (Level.WATCH, Level.BAD):
        return None
    worst = verdict.findings[0]
    cause = "metrics"
    if worst.name == "loss":
        cause = "diverging_loss" if worst.level is Level.BAD else "flat_loss"
    return Diagnosis(
        found.record.run_id, cause, worst.words, "likely", file=found.run_dir / "metrics.jsonl", remedy=worst.remedy,
        state=str(now.state),
    )  # fmt: skip


def file(path: Path) -> Diagnosis:
    """Diagnose a log alone.

    Raises:
        NotFound: no such file.
        Unavailable: it cannot be searched.
    """
    if not is_file(path):
        raise NotFound(f"there is no run and no file {path}", hint="clusterctl status --all lists the runs")
    lines = _lines([path])
    if not path.stat().st_size:
        return Diagnosis(str(path), "unknown", "it is empty: nothing is known")
    finding = diagnosis.diagnose(lines, Evidence(), search.went_on)
    told = _told(str(path), finding, state="", run_id="RUN")
    if finding is None:
        # A log alone does not say whether all went well.
        more = f"if it failed all the same, read its end: `tail {shlex.quote(str(path))}`"
        return replace(told, title="nothing wrong that is known here", sure="a guess", remedy=more)
    return told


def _lines(paths: list[Path]) -> list[Line]:
    try:
        return [line for path in paths if path.is_file() for line in search.candidates(path)]
    except search.CannotRead as e:
        raise Unavailable(str(e), hint="diagnosing needs a log that can be read, and grep") from e


def _evidence(found: Run, now: Status) -> Evidence:
    attempts = store.read_attempts(found.run_dir)
    return Evidence(
        state=str(now.state),
        exit_code=attempts[-1].exit_code if attempts else None,
        error=now.progress.error or "",
        out_of_memory=bool(attempts) and attempts[-1].cause == "host_out_of_memory",
    )


def _waiting(name: str, now: Status) -> Diagnosis:
    reason = next((word for word in NEVER if word in now.why or explain_reason(word) in now.why), None)
    if reason is None:
        return Diagnosis(name, "waiting", f"nothing failed: {now.why}", state=str(now.state))
    return Diagnosis(
        name, "pending_for_ever", f"it will not start by itself: {now.why}", "certain", remedy=NEVER[reason],
        state=str(now.state),
    )  # fmt: skip


def _told(subject: str, finding: Finding | None, *, state: str, run_id: str) -> Diagnosis:
    if finding is None:
        return Diagnosis(subject, "healthy", "nothing wrong", state=state)
    cause, line = finding.cause, finding.line
    return Diagnosis(
        subject,
        cause.name,
        cause.title,
        finding.sure,
        file=line.path if line else None,
        line=search.number(line) if line else None,
        quote=finding.words,
        remedy=(search.hint_after(line) if line else "") or cause.remedy.replace("{run}", run_id),
        policy=cause.policy,
        state=state,
    )
