"""clusterctl plan: whether it fits, when it starts and ends, and what would run, before anything is submitted."""

from __future__ import annotations

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
    SchedulerOption,
    Sets,
    ids,
)
from clusterctl.result import Result

EXAMPLES = """
Examples:

  clusterctl plan sft

  clusterctl plan sft --profile a800-4

  clusterctl plan my.yaml --gpu-type a40 --explain

  clusterctl plan my.yaml --table

  clusterctl plan my.yaml --show-batch --samples 10
"""


def plan(
    recipe: Recipe,
    profile: Profile = None,
    gpu_type: GpuTypeOption = None,
    gpus: Gpus = None,
    gpu_ids: GpuIds = None,
    mixed: Mixed = False,
    sets: Sets = None,
    name: Name = "",
    engine: Engine = None,
    scheduler: SchedulerOption = None,
    force_start: ForceStart = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Every term of memory and time, with its formula and source.")
    ] = False,
    table: Annotated[
        bool, typer.Option("--table", help="The largest batch that fits each type of GPU, with each saving.")
    ] = False,
    show_batch: Annotated[
        bool,
        typer.Option("--show-batch", help="Tokenise the rows and show the first ones, with what is learnt marked."),
    ] = False,
    samples: Annotated[int, typer.Option("--samples", min=1, help="How many rows --show-batch shows.")] = 3,
    json: Json = False,
) -> Result:
    """Show whether a run fits, and where it ends first. Submits nothing.

    Batch, steps, duration, and who said each value. Memory, durations and starts are estimates. The
    exit code is 4 where a run does not fit.
    """
    from clusterctl.plan.estimates import Fit
    from clusterctl.runs.request import Request

    site = settings.load()
    request = Request(
        recipe=recipe,
        profile=profile,
        sets=tuple(sets or ()),
        name=name,
        scheduler=scheduler,
        engine=engine,
        force_start=force_start,
        gpu_type=gpu_type,
        gpus=gpus,
        gpu_ids=ids(gpu_ids),
        mixed=mixed,
    )
    if table:
        from clusterctl.runs import largest
        from clusterctl.views import largest as largest_view

        tables = largest.tables(request, site)
        return Result("plan", {"tables": tables}, lambda: largest_view.view(tables))
    from clusterctl.runs import plan as use
    from clusterctl.views import planned

    plans, notes = use.plan(request, site, samples=samples if show_batch else 0)
    code = 4 if any(one.verdict.fit is Fit.NOT for one in plans) else 0
    return Result("plan", {"plans": plans}, lambda: planned.view(plans, explain=explain), exit_code=code, notes=notes)
