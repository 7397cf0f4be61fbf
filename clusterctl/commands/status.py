"""clusterctl status: one table, derived at every look."""

from __future__ import annotations

from typing import Annotated

import typer

from clusterctl import settings
from clusterctl.commands.options import Json, Runs
from clusterctl.result import Result, Watch

EXAMPLES = """
Examples:

  clusterctl status

  clusterctl status last --watch

  clusterctl status sft-20261123-a3f9   (the runs of a sweep)

  clusterctl status --all --json
"""
NEWEST = 20
WATCH_EVERY = 5.0


def status(
    runs: Runs = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Look again and again, until q or Ctrl-C.")] = False,
    all_: Annotated[bool, typer.Option("--all", "-a", help="All runs, not only unfinished and newest ones.")] = False,
    json: Json = False,
) -> Result | Watch:
    """Show runs: state and why, step, loss, speed, time left. Also whether the time limit is enough."""
    site = settings.load()
    if watch:
        return Watch(lambda: _answer(site, runs or [], all_=all_, living_first=True), WATCH_EVERY)
    return _answer(site, runs or [], all_=all_)


def _answer(site: settings.Settings, names: list[str], *, all_: bool, living_first: bool = False) -> Result:
    from clusterctl.runs import find, sweep_status
    from clusterctl.runs import status as use

    problems: list[str] = []
    if names:
        chosen = find.several(site.output_root, names)
    else:
        known, problems = find.every(site.output_root)
        older, newest = sweep_status.newest(known, NEWEST)
        chosen = known if all_ else [*filter(use.unsettled, older), *newest]
    statuses = use.look(chosen)
    if living_first:
        # A screen that is too small is cut at its lower end.
        statuses = sorted(statuses, key=lambda one: (not one.state.active, -one.record.created_at))

    def view() -> object:
        from clusterctl.views import status_table

        return status_table.view(statuses, problems, root=site.output_root, detailed=bool(names))

    sweeps = [one for one in sweep_status.together(statuses) if isinstance(one, sweep_status.SweepStatus)]
    return Result("status", {"runs": statuses, "sweeps": sweeps, "problems": problems}, view)
