"""Options that several commands share, with their completion. Light: nothing beyond typer at import."""

from __future__ import annotations

from typing import Annotated

import typer

from clusterctl import settings


def _runs(incomplete: str) -> list[str]:
    from clusterctl.adapters import store

    names = [path.name for path in store.run_dirs(settings.load().output_root)]
    return [name for name in (*reversed(names), "last") if name.startswith(incomplete)]


def _recipes(incomplete: str) -> list[str]:
    from clusterctl import assets

    return [asset.name for asset in assets.listing("recipes") if asset.name.startswith(incomplete)]


def _profiles(incomplete: str) -> list[str]:
    from clusterctl import assets

    return [asset.name for asset in assets.listing("profiles") if asset.name.startswith(incomplete)]


Run = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="A run id, a unique beginning of one, a job id, or `last`.", autocompletion=_runs
    ),
]
Runs = Annotated[
    list[str] | None,
    typer.Argument(metavar="[RUN]...", help="Run ids, beginnings of them, job ids, or `last`.", autocompletion=_runs),
]
SomeRuns = Annotated[
    list[str],
    typer.Argument(metavar="RUN...", help="Run ids, beginnings of them, job ids, or `last`.", autocompletion=_runs),
]
Recipe = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A recipe's name, or a path to one.", autocompletion=_recipes)
]
Profile = Annotated[
    str | None,
    typer.Option(
        "--profile",
        "-p",
        help="A profile's name or path. Default: what the recipe names.",
        autocompletion=_profiles,
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a value: optim.learning_rate=5e-5, profile.time=2:00:00."
    ),
]
Name = Annotated[str, typer.Option("--name", help="What the run is called in the queue and in trackers.")]
SchedulerOption = Annotated[
    str | None,
    typer.Option("--scheduler", help="auto, slurm or local. Default: what the site file says, else auto."),
]
Engine = Annotated[
    str | None, typer.Option("--engine", metavar="trl|verl", help="What trains grpo: short for --set engine=...")
]
ForceStart = Annotated[
    bool,
    typer.Option("--force-start", help="Let dpo, kto, grpo, rloo and ppo start from a model that never saw sft."),
]
Json = Annotated[bool, typer.Option("--json", help="Answer in one JSON envelope.")]
