"""clusterctl tail: what a run prints."""

from __future__ import annotations

from typing import Annotated

import typer

from clusterctl import settings
from clusterctl.commands.options import Json, Run
from clusterctl.result import Event, Stream

EXAMPLES = """
Examples:

  clusterctl tail last

  clusterctl tail -f sft-20261122-a3f9

  clusterctl tail --err -n 100 1234
"""


def tail(
    run: Run = "last",
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, help="How many of the last lines to begin with.")] = 20,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the job ends, over requeues.")] = False,
    err: Annotated[bool, typer.Option("--err", help="Only the error log.")] = False,
    json: Json = False,
) -> Stream:
    """Print the end of a run's logs, or follow them. With -f wait for the job, follow it and end with its state."""
    from clusterctl.commands import following
    from clusterctl.runs import find
    from clusterctl.runs import tail as use

    found = find.one(settings.load().output_root, run)
    streams: tuple[use.Stream, ...] = ("err",) if err else following.BOTH
    if follow:
        return Stream("tail", following.events(found, lines, streams), following.goes_on(found))
    texts = use.last_lines(found, lines, streams)
    headed = len(texts) > 1
    events = [Event(text, raw=(f"==> logs/job.{text.stream} <==\n" if headed else "") + text.text) for text in texts]
    return Stream("tail", iter(events))
