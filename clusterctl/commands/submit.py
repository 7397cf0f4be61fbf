"""clusterctl submit: plan, render and hand a recipe over."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from clusterctl import settings
from clusterctl.commands.options import Engine, ForceStart, Json, Name, Profile, Recipe, SchedulerOption, Sets
from clusterctl.result import Result, Stream

EXAMPLES = """
Examples:

  clusterctl submit sft

  clusterctl submit sft --profile cpu-offload --set optim.learning_rate=5e-5

  clusterctl submit my.yaml --dry-run

  clusterctl submit sft --set model.adapter_name_or_path=basic-20261122-a3f9

  clusterctl submit cpt-sft-dpo --name night --follow
"""


def submit(
    recipe: Recipe,
    profile: Profile = None,
    sets: Sets = None,
    name: Name = "",
    engine: Engine = None,
    scheduler: SchedulerOption = None,
    after: Annotated[
        str | None, typer.Option("--after", metavar="RUN", help="Start only when this run has ended well.")
    ] = None,
    force_start: ForceStart = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print exactly the script that would be submitted; write nothing."),
    ] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Follow the log until the run ends.")] = False,
    json: Json = False,
) -> Result | Stream:
    """Submit a recipe: to Slurm where there is one, else to the runner of this machine."""
    from clusterctl.commands import following
    from clusterctl.runs import draft, find, verdict
    from clusterctl.runs import submit as use
    from clusterctl.views import submitted

    site = settings.load()
    request = draft.Request(
        recipe=recipe,
        profile=profile,
        sets=tuple(sets or ()),
        name=name,
        scheduler=scheduler,
        engine=engine,
        force_start=force_start,
        command=tuple(sys.argv),
    )
    waits_for = [find.one(site.output_root, after)] if after else []
    drafts = draft.draft(request, site)
    notes = [note for d in drafts for note in d.notes]
    if dry_run:
        scripts = [{"run": d.composed.config.name, "script": d.script} for d in drafts]
        text = "".join(d.script for d in drafts)
        return Result("submit", {"dry_run": True, "scripts": scripts}, lambda: text, notes=notes)
    predictions = [verdict.prediction(site.output_root, d.fingerprint) for d in drafts]
    runs = use.submit(drafts, request, site, waits_for, predictions)
    tested = None not in predictions
    result = Result(
        "submit",
        {"runs": [submitted.data(run) for run in runs], "tested": tested},
        lambda: submitted.view(runs, request, tested=tested),
        notes=notes,
    )
    return following.after_submit(result, runs, site.output_root) if follow else result
