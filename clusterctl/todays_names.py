"""Names of older scripts in recipes and in ``--set``: put into today's, with a note for the user."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from clusterctl import yaml_text
from clusterctl.errors import UsageProblem
from clusterctl.schema import Profile
from trainers.config import old_names
from trainers.errors import InputProblem


def of_recipe(leaves: Mapping[str, Any], where: Callable[[str], str]) -> old_names.Today:
    """What a recipe says, under today's names. ``where`` locates a key of the file.

    Raises:
        UsageProblem: a key that would store a secret, one without a counterpart, or two that say the same.
    """
    try:
        return old_names.translate(leaves, where)
    except InputProblem as e:
        raise UsageProblem(e.message, hint=e.hint) from e


def of_sets(sets: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The ``key=value`` of ``--set`` under today's names, and the notes. What is no ``key=value`` stays as it is.

    Raises:
        UsageProblem: as ``of_recipe``.
    """
    items = {item.partition("=")[0].strip(): item for item in sets if "=" in item}
    said = {key: yaml_text.scalar(item.partition("=")[2]) for key, item in items.items()}
    today = of_recipe(said, lambda key: f"--set {key}")
    if not today.notes:
        return tuple(sets), ()
    kept = [item for item in sets if "=" not in item]
    for new, value in today.values.items():
        old = today.came_from[new]
        kept.append(items[old] if new == old else f"{new}={json.dumps(value, ensure_ascii=False)}")
    return tuple(kept), tuple(today.notes)


def check_profile(today: old_names.Today, where: Callable[[str], str], profile: Profile, name: str) -> None:
    """What a recipe says of the hardware under an old name has to be what the profile says.

    Raises:
        UsageProblem: it is not; the profile decides.
    """
    for key, value in today.values.items():
        field = key.removeprefix("profile.")
        if field == key or (has := getattr(profile, field)) == value:
            continue
        old = today.came_from[key]
        raise UsageProblem(
            f"{where(old)}: {old} asks for {key}={value}, but profile {name} has {has}, and the profile decides",
            hint=f"take another profile, or say --set {key}={value}",
        )
