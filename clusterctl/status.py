"""What is seen of a run at one look. Nothing of it is stored. Unix seconds; durations in seconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from clusterctl.model import JobState
from clusterctl.record import Record


@dataclass(frozen=True)
class Progress:
    """What the trainer last wrote about itself (``progress.json``); None where it has not said."""

    phase: str = ""
    attempt: int = 0
    step: int = 0
    max_steps: int | None = None
    loss: float | None = None
    tokens_per_second: float | None = None
    seconds_per_step: float | None = None
    peak_memory: int | None = None
    updated_at: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class Attempt:
    """One start of ``job.sh``, from the begin and end lines it leaves in ``attempts.jsonl``."""

    number: int
    job_id: str
    host: str
    started_at: float
    ended_at: float | None = None
    exit_code: int | None = None
    outcome: str = ""
    decision: str = ""
    why: str = ""
    cause: str = ""
    """A name of the table of failures, where it failed or was told to stop."""


class Level(StrEnum):
    """How a run does by its metrics, worst last."""

    GOOD = "healthy"
    EARLY = "too early to say"
    WATCH = "watch"
    BAD = "in trouble"


@dataclass(frozen=True)
class Finding:
    """What the metrics of a run show: ``words`` have the numbers; ``remedy`` is empty where nothing is to do."""

    name: str
    level: Level
    words: str
    remedy: str = ""


@dataclass(frozen=True)
class Health:
    """The verdict on the metrics of a run and everything it rests on, worst first."""

    level: Level
    findings: tuple[Finding, ...] = ()

    @property
    def words(self) -> str:
        """A few words for a table."""
        if not self.findings or self.level is Level.EARLY:
            return str(self.level)
        return f"{self.level}: {self.findings[0].words}"


@dataclass(frozen=True)
class Status:
    """Everything known about a run at one look. Derived each time, never stored."""

    record: Record
    run_dir: Path
    state: JobState
    why: str
    where: str = ""
    progress: Progress = field(default_factory=Progress)
    attempts: int = 0
    started_at: float | None = None
    ended_at: float | None = None
    eta_seconds: float | None = None
    makes_time_limit: bool | None = None
    last_seen: float | None = None
    health: Health | None = None
    """What its metrics say; None where there are none."""
    cause: str = ""
    """The title of the cause of which its last attempt failed; empty where none did or nobody knows."""
    gone: bool = False
    """The scheduler answered and nothing of this run waits or runs: it is safe to submit it again."""
