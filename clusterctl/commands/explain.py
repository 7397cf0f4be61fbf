"""clusterctl recipes explain: what a key of a recipe means.

Without ``from __future__ import annotations``: typer could not look up annotations of a command in a group.
"""

from typing import Annotated, Any

import typer

from clusterctl.commands.options import Json
from clusterctl.errors import UsageProblem
from clusterctl.result import Result

EXAMPLES = """
Examples:

  clusterctl recipes explain optim.learning_rate

  clusterctl recipes explain model.lora

  clusterctl recipes explain method --stage dpo
"""


def _keys(incomplete: str) -> list[str]:
    from trainers.config.fields import all_keys

    return [key for key in all_keys() if key.startswith(incomplete)]


def _stages(incomplete: str) -> list[str]:
    from trainers.config import STAGES

    return [stage for stage in STAGES if stage.startswith(incomplete)]


Key = Annotated[
    str, typer.Argument(metavar="KEY", help="A key or a section, as method.beta or model.lora.", autocompletion=_keys)
]
Stage = Annotated[
    str | None, typer.Option("--stage", help="Only what this stage has. Default: all.", autocompletion=_stages)
]


def explain(key: Key, stage: Stage = None, json: Json = False) -> Result:
    """Say what a key means: its values, its default in each stage, and who decides it."""
    from clusterctl.compose import DECIDED_ELSEWHERE
    from clusterctl.validation import nearest
    from clusterctl.views import explained
    from trainers.config import STAGES
    from trainers.config.fields import look_up

    if stage is not None and stage not in STAGES:
        near = nearest(stage, list(STAGES)).removeprefix(" - ")
        raise UsageProblem(f"unknown stage {stage!r}", hint=near or f"there are: {', '.join(STAGES)}")
    found = look_up(key)
    if found is None:
        raise UsageProblem(f"there is no key {key}", hint=_hint(key))
    if stage is not None and stage not in found.stages:
        raise UsageProblem(f"stage {stage} has no {key}", hint=f"it belongs to {', '.join(found.stages)}")
    stages = {stage: found.stages[stage]} if stage else found.stages
    data: dict[str, Any] = {
        "key": key,
        "meaning": found.meaning,
        "decided_by": DECIDED_ELSEWHERE.get(key, explained.BY_THE_RECIPE),
        "stages": list(stages),
        "entries": explained.entries(stages),
    }
    return Result("recipes explain", data, lambda: explained.view(data, section=found.section))


def _hint(key: str) -> str:
    from clusterctl.validation import nearest
    from trainers.config import STAGES
    from trainers.config.fields import all_keys
    from trainers.config.old_names import todays_name

    if key in STAGES:
        return f"clusterctl recipes explain method --stage {key}"
    if today := todays_name(key):
        return f"that is {today} today"
    return nearest(key, all_keys()).removeprefix(" - ") or "docs/recipe-fields.md has them all"
