"""clusterctl plan: what a submission would run, before anything is submitted."""

from __future__ import annotations

from typing import Annotated

import typer

from clusterctl import settings
from clusterctl.commands.options import Engine, ForceStart, Json, Name, Profile, Recipe, SchedulerOption, Sets
from clusterctl.result import Result

EXAMPLES = """
Examples:

  clusterctl plan sft --profile a800-4

  clusterctl plan my.yaml --set optim.per_device_train_batch_size=2

  clusterctl plan my.yaml --show-batch

  clusterctl plan my.yaml --show-batch --samples 10
"""


def plan(
    recipe: Recipe,
    profile: Profile = None,
    sets: Sets = None,
    name: Name = "",
    engine: Engine = None,
    scheduler: SchedulerOption = None,
    force_start: ForceStart = False,
    show_batch: Annotated[
        bool,
        typer.Option("--show-batch", help="Tokenise the rows and show the first ones, with what is learnt marked."),
    ] = False,
    samples: Annotated[int, typer.Option("--samples", min=1, help="How many rows --show-batch shows.")] = 3,
    json: Json = False,
) -> Result:
    """Show what would run: batch, steps, hardware, time limit, and who said each value. Submits nothing."""
    from clusterctl.runs import draft
    from clusterctl.runs import plan as use
    from clusterctl.views import planned

    site = settings.load()
    request = draft.Request(
        recipe=recipe,
        profile=profile,
        sets=tuple(sets or ()),
        name=name,
        scheduler=scheduler,
        engine=engine,
        force_start=force_start,
    )
    drafts = draft.draft(request, site)
    plans = [use.plan(one, site.output_root, samples=samples if show_batch else 0) for one in drafts]
    notes = [note for one in drafts for note in one.notes]
    return Result("plan", {"plans": plans}, lambda: planned.view(plans), notes=notes)
