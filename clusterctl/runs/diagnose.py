"""Why a run or a log ended: evidence from the scheduler, the run directory and the logs, and the table's answer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from clusterctl.adapters import store
from clusterctl.adapters.slurm_words import explain_reason
from clusterctl.errors import NotFound, Unavailable
from clusterctl.model import JobState, Status
from clusterctl.runs import status
from clusterctl.runs.find import Run
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
    "launch failed requeued held": "`scontrol release` tries again; look at the node first",
    "QOSMaxWallDurationPerJobLimit": "cancel it and ask for less time: --set profile.time=...",
    "AssocMaxWallDurationPerJobLimit": "cancel it and ask for less time: --set profile.time=...",
}
"""Reasons for which a job waits until somebody does something, with what that is."""


@dataclass(frozen=True)
class Diagnosis:
    """``cause`` is a name of the table, ``healthy``, ``waiting``, ``pending_for_ever``, ``running`` or ``unknown``.

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


def run(found: Run) -> Diagnosis:
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
        return Diagnosis(name, "running", "it runs; `clusterctl status` shows how", state=str(now.state))
    lines = [] if now.state is JobState.COMPLETED else _lines([found.run_dir / log for log in LOGS])
    finding = diagnosis.diagnose(lines, _evidence(found, now), search.went_on)
    return _told(name, finding, state=str(now.state), run_id=name)


def file(path: Path) -> Diagnosis:
    """Diagnose a log alone.

    Raises:
        NotFound: no such file.
        Unavailable: it cannot be searched.
    """
    if not path.is_file():
        raise NotFound(f"there is no run and no file {path}", hint="clusterctl status --all lists the runs")
    finding = diagnosis.diagnose(_lines([path]), Evidence(), search.went_on)
    return _told(str(path), finding, state="", run_id="RUN")


def _lines(paths: list[Path]) -> list[Line]:
    try:
        return [line for path in paths if path.is_file() for line in search.candidates(path)]
    except search.CannotRead as e:
        raise Unavailable(str(e), hint="check that the log can be read, and that grep is on PATH") from e


def _evidence(found: Run, now: Status) -> Evidence:
    attempts = store.read_attempts(found.run_dir)
    return Evidence(
        state=str(now.state),
        exit_code=attempts[-1].exit_code if attempts else None,
        error=now.progress.error or "",
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
