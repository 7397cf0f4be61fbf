"""A recipe file: what it says for the trainer, or the pipeline that it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from clusterctl import assets, todays_names, yaml_text
from clusterctl.errors import UsageProblem
from clusterctl.layers import Layers, leaves, parse_sets
from clusterctl.schema import Member
from clusterctl.validation import validate
from trainers.config import schema_of
from trainers.config.old_names import Today
from trainers.config.section import keys

_RECIPE_ONLY = {"description", "profile", "pipeline", "name"}


@dataclass(frozen=True)
class Recipe:
    """A recipe file: what it sets for the trainer, its default profile, or the pipeline that it is."""

    name: str
    document: yaml_text.Document
    profile: str | None
    pipeline: tuple[Member, ...]
    said: Today
    """What the file says, by today's names."""

    @property
    def values(self) -> dict[str, Any]:
        """The trainer's part of the file."""
        layers = Layers()
        for key, value in self.said.values.items():
            if key.partition(".")[0] not in _RECIPE_ONLY:
                layers.put(key, value, self.where(key))
        return layers.values

    def where(self, key: str) -> str:
        """``file:line`` of a key, also where the file has it under an old name."""
        return self.document.where(self.said.came_from.get(key, key))


def read_recipe(name: str) -> Recipe:
    """Find and read a recipe.

    Raises:
        NotFound, UsageProblem: no such recipe, or not a recipe.
    """
    asset = assets.find("recipes", name)
    document = yaml_text.read(asset.path)
    values = document.values
    return Recipe(
        asset.name,
        document,
        str(values["profile"]) if values.get("profile") else None,
        tuple(_members(document)) if "pipeline" in values else (),
        todays_names.of_recipe({} if "pipeline" in values else dict(leaves(values)), document.where),
    )


def _members(document: yaml_text.Document) -> Iterator[Member]:
    members, where = document.values["pipeline"], document.where("pipeline")
    if not isinstance(members, list) or not members or set(document.values) - {"description", "profile", "pipeline"}:
        raise UsageProblem(
            f"{where}: a pipeline is a list of recipes, beside it only `description` and `profile`",
            hint="write `pipeline: [{recipe: cpt}, {recipe: sft}, {recipe: dpo}]`",
        )
    for number, item in enumerate(members, start=1):
        data = item if isinstance(item, dict) else {"recipe": item}
        yield validate(Member, data, lambda _: where, what=f"{where}, member {number}")


def sets_for(recipe: Recipe, sets: Sequence[str]) -> list[str]:
    """Those of a pipeline's ``--set`` whose key this member's stage knows, and all that are said of the profile."""
    known = {*keys(schema_of(recipe.values))}
    return [
        item
        for item, (key, _) in zip(sets, parse_sets(sets), strict=True)
        if key in known or key.startswith(("profile.", "data.columns."))
    ]
