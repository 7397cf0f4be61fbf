"""What a person sees of an examination: a line of evidence for each check, and what to do below what is not ok."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from clusterctl.doctor.check import Check, Report, Section
from clusterctl.views.cells import plain

_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red", "unknown": "yellow", "skipped": "dim"}
_WORDS = {"ok": "ok", "warn": "WARNING", "fail": "FAILED", "unknown": "UNKNOWN", "skipped": "skipped"}
_COUNTED = {"ok": "ok", "warn": "with a warning", "fail": "failed", "unknown": "unknown", "skipped": "skipped"}


def view(report: Report) -> Any:
    """All sections, and how many checks there are of each state."""
    parts: list[Any] = []
    for section in report.sections:
        parts += [*([""] if parts else []), plain(section.title, "bold"), _table(section)]
    said = ", ".join(f"{count} {_COUNTED[state]}" for state, count in report.counts.items() if count)
    return Group(*parts, "", Text(said, style="bold"))


def _table(section: Section) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(max_width=22, overflow="fold")
    table.add_column(overflow="fold")
    for check in section.checks:
        style = _STYLES[check.state]
        table.add_row(Text(_WORDS[check.state], style=style), plain(check.name), Text("\n").join(_lines(check)))
    return table


def _lines(check: Check) -> Iterator[Text]:
    where = f"{check.host}: " if check.host else ""
    yield plain(where + check.evidence)
    if check.remedy and check.state != "ok":
        yield plain(f"-> {check.remedy}", "dim" if check.state == "skipped" else "bold")
