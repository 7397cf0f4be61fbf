"""Turning the events of a followed run into a stream: shared by tail, submit --follow and test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from clusterctl.model import JobState
from clusterctl.result import Event, Result, Stream
from clusterctl.runs import tail
from clusterctl.runs.find import Run
from clusterctl.status import Status
from clusterctl.views import status_table

BOTH: tuple[tail.Stream, ...] = ("out", "err")


def events(run: Run, lines: int, streams: Sequence[tail.Stream] = BOTH) -> Iterator[Event]:
    """The log as it comes, then the state; exit code 0 only when the run ended COMPLETED."""
    for item in tail.follow(run, lines, streams):
        if isinstance(item, Status):
            ended = not item.state.active
            code = 1 if ended and item.state is not JobState.COMPLETED else 0
            text = status_table.sentence(item)
            yield Event(item, raw=f"--- {text}\n", exit_code=code)
        else:
            yield Event(item, raw=item.text, error_stream=item.stream == "err")


def after_submit(result: Result, runs: Sequence[Run], root: Path) -> Stream:
    """What was submitted, then the log of each run in turn."""

    def everything() -> Iterator[Event]:
        yield Event(result.data, view=result.view)
        for run in runs:
            last = 0
            for event in events(run, lines=10_000):
                last = event.exit_code
                yield event
            if last:
                return

    return Stream(result.command, everything(), on_interrupt=goes_on(runs[-1]), notes=result.notes)


def goes_on(run: Run) -> str:
    """For those who press Ctrl-C while following."""
    return f"the run goes on; clusterctl tail -f {run.record.run_id} follows it again"
