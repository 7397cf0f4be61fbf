"""clusterctl run: the same script in the foreground, for debugging."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from clusterctl import settings
from clusterctl.commands.options import (
    Engine,
    ForceStart,
    GpuIds,
    Gpus,
    GpuTypeOption,
    Json,
    Mixed,
    Name,
    Profile,
    Recipe,
    Sets,
    ids,
)
from clusterctl.errors import UsageProblem
from clusterctl.result import Event, Stream

EXAMPLES = """
Examples:

  clusterctl run sft --set optim.max_steps=5

  salloc --gpus=1 clusterctl run sft --profile gpu-1 --srun
"""


def run(
    recipe: Recipe,
    profile: Profile = None,
    gpu_type: GpuTypeOption = None,
    gpus: Gpus = None,
    gpu_ids: GpuIds = None,
    mixed: Mixed = False,
    sets: Sets = None,
    name: Name = "",
    engine: Engine = None,
    force_start: ForceStart = False,
    srun: Annotated[
        bool,
        typer.Option("--srun", help="Inside an interactive Slurm allocation: start it on the nodes there."),
    ] = False,
    json: Json = False,
) -> Stream:
    """Run a recipe here and now, on this terminal. Ctrl-C ends it."""
    from clusterctl.model import JobState
    from clusterctl.runs import draft, foreground, predict
    from clusterctl.runs.request import Request
    from clusterctl.views import status_table

    site = settings.load()
    request = Request(
        recipe=recipe,
        profile=profile,
        sets=tuple(sets or ()),
        name=name,
        scheduler="slurm" if srun else "local",
        engine=engine,
        force_start=force_start,
        gpu_type=gpu_type,
        gpus=gpus,
        gpu_ids=ids(gpu_ids),
        mixed=mixed,
        command=tuple(sys.argv),
    )
    drafts = draft.draft(request, site)
    if srun and any(one.choice for one in drafts):
        raise UsageProblem(
            "no profile is named, and what would be chosen of the whole cluster need not be in this allocation",
            hint="name one for what it has, as --profile gpu-1",
        )
    notes = [*(note for d in drafts for note in d.notes), *predict.memory_notes(drafts, site.output_root)]

    def events() -> Iterator[Event]:
        ended = foreground.run(drafts, request, site, srun=srun)
        text = "".join(f"--- {status_table.sentence(one)}\n" for one in ended)
        ok = all(one.state is JobState.COMPLETED for one in ended)
        yield Event(ended, lambda: text, exit_code=0 if ok else 1)

    # A stream, since its notes are told before the training begins.
    return Stream("run", events(), notes=notes)
