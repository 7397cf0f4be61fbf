"""What a person sees of a run's status: a row, a sentence, a panel of details."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clusterctl.durations import words
from clusterctl.model import JobState
from clusterctl.runs import sweep_status
from clusterctl.runs.sweep_status import SweepStatus
from clusterctl.status import Level, Status

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

_HEADINGS = ("RUN", "RECIPE", "WHERE", "STATE", "STEP", "LOSS", "TOK/S", "ETA", "LIMIT", "WHY")

_COLOURS = {
    JobState.RUNNING: "green",
    JobState.COMPLETED: "bold green",
    JobState.PENDING: "yellow",
    JobState.CANCELLED: "dim",
    JobState.UNKNOWN: "magenta",
}


WIDE = 110
"""Columns of a terminal in which the whole table can be read; below, the reasons stand under it."""


def view(statuses: Sequence[Status], problems: Sequence[str], *, root: Path, detailed: bool) -> RenderableType:
    """The table; below it directories when single runs were asked for, and the records that cannot be read."""
    from rich.console import Group
    from rich.text import Text

    if not statuses:
        return Text(f"No runs in {root}. clusterctl submit RECIPE makes one.\n" + "".join(f"{p}\n" for p in problems))
    parts: list[RenderableType] = [_Table(statuses if detailed else sweep_status.together(statuses))]
    if detailed:
        parts += [Text(f"{one.record.run_id}: {one.run_dir}", style="dim") for one in statuses]
    parts += [Text(problem, style="red") for problem in problems]
    return Group(*parts)


class _Table:
    """The rows, in a form that fits the width of the terminal."""

    def __init__(self, statuses: Sequence[Status | SweepStatus]) -> None:
        self._statuses = statuses

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.table import Table
        from rich.text import Text

        wide = options.max_width >= WIDE
        left_out = () if wide else ("RECIPE", "TOK/S", "LIMIT", "WHY")
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in _HEADINGS:
            if heading not in left_out:
                right = heading in ("STEP", "LOSS", "TOK/S", "ETA", "LIMIT")
                table.add_column(
                    heading,
                    justify="right" if right else "left",
                    no_wrap=heading not in ("RUN", "WHY"),
                    overflow="fold",
                )
        for one in self._statuses:
            cells = zip(_HEADINGS, _of_sweep(one) if isinstance(one, SweepStatus) else _cells(one), strict=True)
            table.add_row(*(cell for heading, cell in cells if heading not in left_out))
        yield table
        if not wide:
            for one in self._statuses:
                if isinstance(one, SweepStatus):
                    yield Text(f"{one.sweep}: {one.words}", style="dim")
                    continue
                late = "TOO LATE for its time limit; " if one.makes_time_limit is False else ""
                yield Text(f"{one.record.run_id}: {late}{_why(one)}", style="dim")


def sentence(one: Status) -> str:
    """One line: ``sft-... COMPLETED on n1, step 48/48, loss 0.86: finished``."""
    parts = [f"{one.record.run_id} {one.state}"]
    if one.where:
        parts.append(f"on {one.where}")
    text = " ".join(parts)
    if one.progress.max_steps:
        text += f", step {_step(one)}"
    if one.progress.loss is not None:
        text += f", loss {one.progress.loss:.4g}"
    return f"{text}: {with_cause(one)}"


def with_cause(one: Status) -> str:
    """Why a run is in its state; of a failed one with the name of the cause, and who knows more."""
    why = f"{one.cause}: {one.why}" if one.cause and one.cause not in one.why else one.why
    if one.state in (JobState.FAILED, JobState.OUT_OF_MEMORY):
        why += f" (clusterctl diagnose {one.record.run_id})"
    return why


def _cells(one: Status) -> list[RenderableType]:
    from rich.text import Text

    record, progress = one.record, one.progress
    where = one.where or record.resources.partition or record.scheduler
    return [
        Text(record.run_id),
        Text(record.recipe if record.kind == "train" else f"{record.recipe} (test)"),
        Text(where),
        Text(one.state, style=_COLOURS.get(one.state, "bold red")),
        Text(_step(one)),
        Text("" if progress.loss is None else f"{progress.loss:.4g}"),
        Text("" if not progress.tokens_per_second else f"{progress.tokens_per_second:,.0f}"),
        Text("" if one.eta_seconds is None else words(one.eta_seconds)),
        _limit(one),
        Text(_why(one)),
    ]


def _of_sweep(one: SweepStatus) -> list[RenderableType]:
    from rich.text import Text

    cells = dict.fromkeys(_HEADINGS, "")
    cells |= {
        "RUN": one.sweep,
        "RECIPE": "sweep",
        "WHERE": "sweep",
        "STEP": f"{one.states.get(JobState.COMPLETED, 0)}/{one.runs} runs",
        "LOSS": "" if one.loss is None else f"{one.loss:.4g}",
        "ETA": "" if one.eta_seconds is None else words(one.eta_seconds),
        "WHY": one.words,
    }
    state = Text(one.state, style=_COLOURS.get(one.state, "bold red"))
    return [state if heading == "STATE" else Text(text) for heading, text in cells.items()]


def _step(one: Status) -> str:
    progress = one.progress
    if progress.max_steps:
        return f"{progress.step}/{progress.max_steps}"
    return str(progress.step) if progress.step else ""


def _limit(one: Status) -> RenderableType:
    from rich.text import Text

    if one.makes_time_limit is None:
        return Text("")
    return Text("in time", style="green") if one.makes_time_limit else Text("TOO LATE", style="bold red")


def _why(one: Status) -> str:
    why = with_cause(one)
    if one.state is JobState.RUNNING and one.progress.updated_at:
        silent = time.time() - one.progress.updated_at
        # Long steps are normal; silence far beyond one is worth a word.
        if silent > max(120.0, 10 * (one.progress.seconds_per_step or 0)):
            why = f"{why}, silent for {words(silent)}"
    if one.attempts > 1:
        why = f"{why} (attempt {one.attempts})"
    return why + _health(one)


def _health(one: Status) -> str:
    """What the metrics say, where they say something: all of an alarm, one word where all is well."""
    if one.health is None or one.health.level is Level.EARLY or one.state.waiting:
        return ""
    if one.health.level is not Level.GOOD:
        return f"; {one.health.words}"
    return "; healthy" if one.state in (JobState.RUNNING, JobState.COMPLETED) else ""
