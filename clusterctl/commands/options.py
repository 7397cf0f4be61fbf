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


def profile_names(incomplete: str) -> list[str]:
    """Completion of a profile: the files, and names that need none."""
    from clusterctl import assets
    from trainers import hardware

    files = [asset.name for asset in assets.listing("profiles")]
    # A name with a type of GPU goes on as the user likes: a800-4, a800-4-zero3.
    names = [*files, *(f"{word}-{count}" for word in ("gpu", *hardware.types()) for count in (1, 2, 4, 8))]
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]


def _gpu_types(incomplete: str) -> list[str]:
    from trainers import hardware

    return [word for word in ("auto", *hardware.types()) if word.startswith(incomplete)]


def ids(text: str | None) -> tuple[str, ...]:
    """The cards that ``--gpu-ids`` names. Raises UsageProblem for an empty or a doubled one."""
    from clusterctl.errors import UsageProblem

    if text is None:
        return ()
    words = tuple(word.strip() for word in text.split(","))
    if not all(words) or len(set(words)) < len(words):
        raise UsageProblem(
            f"--gpu-ids {text!r} is no list of different GPUs", hint="write --gpu-ids 0,1,4,5, as `clusterctl gpus`"
        )
    return words


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
        help="A profile: cpu, a800-4-zero3, a path. Default: what the recipe names, else the one that ends first.",
        autocompletion=profile_names,
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
GpuTypeOption = Annotated[
    str | None,
    typer.Option(
        "--gpu-type",
        metavar="TYPE|auto",
        help="Only GPUs of this type: a800, a40. auto: any.",
        autocompletion=_gpu_types,
    ),
]
Gpus = Annotated[int | None, typer.Option("--gpus", metavar="N", help="So many GPUs, of all nodes together.")]
GpuIds = Annotated[
    str | None,
    typer.Option("--gpu-ids", metavar="0,1,...", help="These GPUs of this machine; not with Slurm, which chooses."),
]
Mixed = Annotated[bool, typer.Option("--mixed", help="Let --gpu-ids name GPUs of several types.")]
Json = Annotated[bool, typer.Option("--json", help="Answer in one JSON envelope.")]
