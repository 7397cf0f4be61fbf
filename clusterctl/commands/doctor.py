"""clusterctl doctor: whether a job would find what it needs, found out before one waits a night."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Annotated

import typer

from clusterctl import settings
from clusterctl.commands.options import Json, SchedulerOption, profile_names
from clusterctl.errors import UsageProblem
from clusterctl.result import Event, Result, Stream

EXAMPLES = """
Examples:

  clusterctl doctor

  clusterctl doctor --on a800-2

  clusterctl doctor --on cpu --wait 2:00:00

  clusterctl doctor --json
"""


def doctor(
    on: Annotated[
        str | None,
        typer.Option(
            "--on",
            metavar="PROFILE",
            help="Also look at nodes: a job of about a minute with this profile's resources.",
            autocompletion=profile_names,
        ),
    ] = None,
    wait: Annotated[
        str, typer.Option("--wait", metavar="TIME", help="How long that job may stay in the queue.")
    ] = "10:00",
    scheduler: SchedulerOption = None,
    json: Json = False,
) -> Result | Stream:
    """Examine site, environment, disks, network and limits. Each finding comes with what to do.

    Exit code 0: nothing failed (warnings may be there). 1: a check failed. 3: the job of --on gave no answer.
    """
    from clusterctl import durations
    from clusterctl.doctor.check import Report
    from clusterctl.runs import doctor as use

    try:
        limit = durations.seconds(wait)
    except ValueError as e:
        raise UsageProblem(f"--wait: {e}", hint="write --wait 30:00 for half an hour") from None
    said = use.examine(settings.load(), on=on, scheduler=scheduler, wait=limit)

    def show(report: Report) -> object:
        from clusterctl.views import doctor as views

        return views.view(report)

    if json:
        [report] = [one for one in said if isinstance(one, Report)]
        return Result("doctor", report, partial(show, report), exit_code=report.exit_code)

    def events() -> Iterator[Event]:
        for one in said:
            if isinstance(one, str):
                yield Event({"progress": one}, raw=f"{one}\n", error_stream=True)
            else:
                yield Event(one, view=partial(show, one), exit_code=one.exit_code)

    return Stream("doctor", events())
