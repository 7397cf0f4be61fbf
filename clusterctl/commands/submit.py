"""clusterctl submit: plan, render and hand a recipe over."""

from __future__ import annotations

import sys
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
from clusterctl.result import Result, Stream

EXAMPLES = """
Examples:

  clusterctl submit sft

  clusterctl submit sft --profile a800-4-zero3 --set optim.learning_rate=5e-5

  clusterctl submit stage1 --gpu-type a800 --gpus 4

  clusterctl submit my.yaml --dry-run

  clusterctl submit sft --set model.adapter_name_or_path=basic-20261122-a3f9

  clusterctl submit cpt-sft-dpo --name night --follow

  clusterctl submit sft --auto-fix oom --notify mail:you@example.org

  clusterctl submit dpo --sweep optim.learning_rate=1e-6,5e-7 --sweep method.beta=0.1,0.2 --parallel 2
"""


def submit(
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
    after: Annotated[
        str | None, typer.Option("--after", metavar="RUN", help="Start only when this run has ended well.")
    ] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option("--sweep", metavar="KEY=VALUE,VALUE", help="A run for each value, of all keys together."),
    ] = None,
    parallel: Annotated[
        int | None, typer.Option("--parallel", metavar="N", help="At most so many runs of the sweep at a time.")
    ] = None,
    force_start: ForceStart = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print exactly the script that would be submitted; write nothing."),
    ] = False,
    auto_fix: Annotated[
        list[str] | None,
        typer.Option(
            "--auto-fix",
            metavar="oom[,shorter]",
            help="Out of memory: let the job go on with smaller batches of the same effective size, then checkpointing,"
            " then offload. shorter: rows may be cut too.",
        ),
    ] = None,
    notify: Annotated[
        str | None,
        typer.Option(
            "--notify",
            metavar="COMMAND|URL|mail:ADDRESS",
            help="Who is told when it ends, fails or is queued again. none: nobody, whatever the site says.",
        ),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Follow the log until the run ends.")] = False,
    json: Json = False,
) -> Result | Stream:
    """Submit a recipe to Slurm or, where there is none, here."""
    from clusterctl.commands import following
    from clusterctl.runs import aftercare, draft, find, predict
    from clusterctl.runs import submit as use
    from clusterctl.runs.request import Request
    from clusterctl.views import submitted

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
        command=tuple(sys.argv),
        auto_fix=aftercare.allowed(auto_fix),
    )
    waits_for = [find.one(site.output_root, after)] if after else []
    if sweep or parallel is not None:
        from clusterctl.commands import sweeping

        return sweeping.submit(
            request, site, sweep or [], parallel, waits_for, notify=notify, dry_run=dry_run, follow=follow
        )
    drafts = draft.draft(request, site)
    request, drafts = aftercare.with_word(request, drafts, notify, site.site())
    notes = [*(note for d in drafts for note in d.notes), *predict.memory_notes(drafts, site.output_root)]
    if dry_run:
        scripts = [{"run": d.composed.config.name, "script": d.script} for d in drafts]
        text = "".join(d.script for d in drafts)
        return Result("submit", {"dry_run": True, "scripts": scripts}, lambda: text, notes=notes)
    predictions = [predict.prediction(d, site.output_root) for d in drafts]
    runs = use.submit(drafts, request, site, waits_for, predictions)
    tested = all(one and "from_test" in one for one in predictions)
    result = Result(
        "submit",
        {"runs": [submitted.data(run) for run in runs], "tested": tested},
        lambda: submitted.view(runs, request, tested=tested),
        notes=notes,
    )
    return following.after_submit(result, runs, site.output_root) if follow else result
