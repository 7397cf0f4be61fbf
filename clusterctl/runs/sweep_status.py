"""The runs of a sweep seen as one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clusterctl.model import JobState
from clusterctl.runs.find import Run
from clusterctl.status import Status

_TELLING = (
    *(JobState.RUNNING, JobState.COMPLETING, JobState.SUSPENDED),
    *(JobState.PENDING, JobState.CONFIGURING, JobState.REQUEUED, JobState.UNKNOWN),
    *(JobState.FAILED, JobState.OUT_OF_MEMORY, JobState.TIMEOUT, JobState.DEADLINE),
    *(JobState.NODE_FAIL, JobState.BOOT_FAIL, JobState.PREEMPTED, JobState.CANCELLED),
    JobState.COMPLETED,
)
"""What one of its runs is says more of a sweep than what the others are, in this order."""


@dataclass(frozen=True)
class SweepStatus:
    """``states`` counts its runs; ``best`` is the run with the lowest last loss, of those that have one."""

    sweep: str
    runs: int
    state: JobState
    states: Mapping[JobState, int]
    varies: tuple[str, ...]
    loss: float | None
    best: str
    eta_seconds: float | None
    members: tuple[str, ...]

    @property
    def words(self) -> str:
        """``4 runs: 1 RUNNING, 3 COMPLETED; varies optim.learning_rate``."""
        states = ", ".join(f"{count} {state}" for state, count in self.states.items())
        best = f"; lowest loss {self.best}" if self.best else ""
        return f"{self.runs} runs: {states}; varies {', '.join(self.varies)}{best}"


def of(members: Sequence[Status]) -> SweepStatus:
    """All runs of one sweep as one."""
    states = Counter(one.state for one in members)
    losses = [(one.progress.loss, one.record.run_id) for one in members if one.progress.loss is not None]
    loss, best = min(losses, default=(None, ""))
    etas = [one.eta_seconds for one in members if one.eta_seconds is not None]
    return SweepStatus(
        sweep=members[0].record.sweep,
        runs=len(members),
        state=min(states, key=_TELLING.index),
        states=dict(sorted(states.items())),
        varies=tuple(item.partition("=")[0] for item in members[0].record.swept),
        loss=loss,
        best=best,
        # While some wait, nobody knows.
        eta_seconds=None if any(one.state.waiting for one in members) else max(etas, default=None),
        members=tuple(one.record.run_id for one in members),
    )


def together(statuses: Sequence[Status]) -> list[Status | SweepStatus]:
    """The runs of each sweep as one, where the first of them stood."""
    sweeps: dict[str, list[Status]] = {}
    for one in statuses:
        sweeps.setdefault(one.record.sweep or one.record.run_id, []).append(one)
    return [of(found) if found[0].record.sweep else found[0] for found in sweeps.values()]


def newest(runs: Sequence[Run], count: int) -> tuple[list[Run], list[Run]]:
    """Runs, oldest first, parted into the older ones and the newest, where a sweep counts as one and stays whole."""
    places = {run.record.sweep or run.record.run_id: place for place, run in enumerate(runs)}
    kept = {name for name, _ in sorted(places.items(), key=lambda item: item[1])[-count:]}
    older = [run for run in runs if (run.record.sweep or run.record.run_id) not in kept]
    return older, [run for run in runs if (run.record.sweep or run.record.run_id) in kept]
