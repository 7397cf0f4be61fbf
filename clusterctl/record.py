"""The record of a run: what was asked, and handed to a scheduler. Unix seconds; durations in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from clusterctl.model import Resources, SchedulerName


@dataclass(frozen=True)
class JobEntry:
    """One hand-over of a run to its scheduler. ``job_id`` is None while that is not confirmed."""

    token: str
    requested_at: float
    job_id: str | None = None


@dataclass(frozen=True)
class Record:
    """The lasting record of a run: what was asked, when, by whom. What happens later is never written here."""

    run_id: str
    name: str
    stage: str
    kind: Literal["train", "test"]
    recipe: str
    profile: str
    scheduler: SchedulerName
    resources: Resources
    fingerprint: str
    created_at: float
    user: str
    host: str
    command: tuple[str, ...]
    world_size: int = 1
    max_steps: int | None = None
    """Of the full run, where the recipe gives them; else ``num_train_epochs`` counts."""
    num_train_epochs: float = 0.0
    full_time_limit: int | None = None
    """Seconds that the full run would have, where this is a shorter test of it."""
    after: tuple[str, ...] = ()
    sweep: str = ""
    """The sweep that the run belongs to: its run id is ``SWEEP-N``."""
    swept: tuple[str, ...] = ()
    """``key=value`` of what the sweep varies."""
    parallel: int | None = None
    """So many runs of the sweep at a time."""
    auto_fix: tuple[str, ...] = ()
    """What the job may change by itself: oom, shorter."""
    jobs: tuple[JobEntry, ...] = ()
    schema: int = 1

    @property
    def job(self) -> JobEntry | None:
        """The newest hand-over."""
        return self.jobs[-1] if self.jobs else None
