"""recipe + profile + site + overrides -> RunConfig: who says what, in which order, and every error at once.

Later layers win: the schema's defaults, the site's tracking, the recipe, the profile, the profile's ``set``,
``--set``. With the profile that a recipe names itself, the recipe wins over the ``set``: it was written for that one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from clusterctl import assets, todays_names, yaml_text
from clusterctl.errors import UsageProblem
from clusterctl.local_paths import make_absolute
from clusterctl.pipeline import Start
from clusterctl.schema import Member, Profile, Site
from clusterctl.validation import keys, nearest, of_other_stages, validate
from trainers.config import RunConfig, schema_of
from trainers.config.old_names import Today

_RECIPE_ONLY = {"description", "profile", "pipeline", "name"}
DECIDED_ELSEWHERE = {
    "name": "--name",
    "kind": "clusterctl test",
    "schema_version": "nothing: it names the form of run.yaml",
    "parallel.launcher": "profile.launcher",
    "parallel.strategy": "profile.strategy",
    "parallel.offload": "profile.offload",
    "parallel.device": "profile.gpus_per_node",
    "parallel.num_nodes": "profile.nodes",
    "parallel.processes_per_node": "profile.gpus_per_node, or profile.processes_per_node without GPUs",
    "precision.dtype": "profile.dtype",
}
"""Keys of run.yaml that recipes, ``set`` and ``--set`` may not say, and what says them instead."""


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
        layers = _Layers()
        for key, value in self.said.values.items():
            if key.partition(".")[0] not in _RECIPE_ONLY:
                layers.put(key, value, self.where(key))
        return layers.values

    def where(self, key: str) -> str:
        """``file:line`` of a key, also where the file has it under an old name."""
        return self.document.where(self.said.came_from.get(key, key))


@dataclass(frozen=True)
class Composed:
    """A validated configuration with the profile it was made for, and where each value came from."""

    config: RunConfig
    profile: Profile
    recipe_name: str
    profile_name: str
    origins: Mapping[str, str]
    full_steps: int | None = None
    """max_steps of the recipe, where it has them; a test run is shorter."""
    full_time: int = 0
    """Seconds of the profile's time limit, of which a test takes less."""
    notes: tuple[str, ...] = ()
    """What the user should know of the recipe, such as old names in it."""


@dataclass
class _Layers:
    """Nested values with the origin of every leaf; later ``put`` calls win."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)

    def put(self, dotted: str, value: Any, origin: str) -> None:
        *sections, leaf = dotted.split(".")
        target = self.values
        for depth, section in enumerate(sections, start=1):
            inner = target.setdefault(section, {})
            if not isinstance(inner, dict):
                at = ".".join(sections[:depth])
                raise UsageProblem(f"{self.where(at)}: {at} is a section, not a value", hint=f"write {at}.<key>")
            target = inner
        target[leaf] = value
        self.origins[dotted] = origin

    def where(self, dotted: str) -> str:
        """The origin of a key, else of what encloses it, else of the first thing said inside it."""
        parts = dotted.split(".")
        for length in range(len(parts), 0, -1):
            if found := self.origins.get(".".join(parts[:length])):
                return found
        inside = (origin for key, origin in self.origins.items() if key.startswith(f"{dotted}."))
        return next(inside, "default")


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
        todays_names.of_recipe({} if "pipeline" in values else dict(_leaves(values)), document.where),
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


def read_profile(name: str, sets: Sequence[str] = ()) -> Profile:
    """Find and read a profile, with the ``--set profile.key=value`` overrides applied.

    Raises:
        NotFound, UsageProblem: no such profile, or every error in it.
    """
    asset = assets.find("profiles", name)
    document = yaml_text.read(asset.path)
    layers = _Layers(dict(document.values), {k: f"{document.path}:{n}" for k, n in document.lines.items()})
    for key, value in _parse_sets(sets):
        if key.startswith("profile."):
            layers.put(key.removeprefix("profile."), value, f"--set {key}")
    return validate(Profile, layers.values, layers.where, what=f"profile {asset.name}")


def compose(
    recipe: Recipe,
    profile_name: str,
    site: Site,
    sets: Sequence[str] = (),
    *,
    name: str = "",
    kind: str = "train",
    extra: Mapping[str, Any] | None = None,
    start: Start | None = None,
) -> Composed:
    """Join the layers and validate the result.

    ``extra`` is what a pipeline sets for this member, ``start`` what it starts from, which no layer outdoes.

    Raises:
        UsageProblem: every error at once, with where each value came from and the nearest valid key.
    """
    profile = read_profile(profile_name, sets)
    todays_names.check_profile(recipe.said, recipe.document.where, profile, profile_name)
    layers = _Layers()
    for key, value in site.tracking.items():
        layers.put(f"tracking.{key}", value, "site file")
    said = {key: (value, _allowed(key, recipe.where(key))) for key, value in _leaves(recipe.values)}
    by_profile = f"profile {profile_name}, set"
    fitting = {key: (value, _allowed(key, by_profile)) for key, value in _leaves(profile.set)}
    for layer in (fitting, said) if profile_name == recipe.profile else (said, fitting):
        for key, (value, origin) in layer.items():
            layers.put(key, value, origin)
    for key, value in _hardware(profile).items():
        layers.put(key, value, f"profile {profile_name}")
    for key, value in _leaves(extra or {}):
        layers.put(key, value, _allowed(key, "pipeline"))
    known, unknown = list(keys(schema_of(layers.values))), []
    for item, whole in _parse_sets(sets):
        for key, value in _leaves({item: whole}):
            if key.startswith("profile."):
                continue
            if key not in known and not key.startswith("data.columns."):
                unknown.append(f"--set {key}: there is no such key{of_other_stages(key) or nearest(key, known)}")
            else:
                layers.put(key, value, _allowed(key, f"--set {key}"))
    if unknown:
        raise UsageProblem("\n  ".join(unknown), hint=_SET_HINT)
    if start:
        for key, value in start.model(layers.values).items():
            layers.put(f"model.{key}", value, f"pipeline, after {start.name}")
    layers.put("name", name or recipe.said.values.get("name") or recipe.name, "--name" if name else "recipe")
    layers.put("kind", kind, "command")
    config = validate(schema_of(layers.values), layers.values, layers.where, what=f"recipe {recipe.name}")
    steps = config.optim.max_steps
    return Composed(
        make_absolute(config, start.planned if start else frozenset()),
        profile,
        recipe.name,
        profile_name,
        layers.origins,
        full_steps=steps if steps > 0 else None,
        full_time=profile.time,
        notes=tuple(recipe.said.notes),
    )


def sets_for(recipe: Recipe, sets: Sequence[str]) -> list[str]:
    """Those of a pipeline's ``--set`` whose key this member's stage knows, and all that are said of the profile."""
    known = {*keys(schema_of(recipe.values))}
    return [
        item
        for item, (key, _) in zip(sets, _parse_sets(sets), strict=True)
        if key in known or key.startswith(("profile.", "data.columns."))
    ]


_SET_HINT = "write --set section.key=value, for example --set optim.learning_rate=5e-5 or --set profile.time=2:00:00"


def _allowed(key: str, origin: str) -> str:
    if instead := DECIDED_ELSEWHERE.get(key):
        raise UsageProblem(f"{origin}: {key} cannot be said here", hint=f"what decides it is {instead}")
    return origin


def _hardware(profile: Profile) -> dict[str, Any]:
    return {
        "parallel.launcher": profile.launcher,
        "parallel.strategy": profile.strategy,
        "parallel.offload": profile.offload,
        "parallel.device": "cuda" if profile.gpus_per_node else "cpu",
        "parallel.num_nodes": profile.nodes,
        "parallel.processes_per_node": profile.processes,
        "precision.dtype": profile.dtype,
    }


def _parse_sets(sets: Sequence[str]) -> Iterator[tuple[str, Any]]:
    for item in sets:
        key, equals, value = item.partition("=")
        if not equals or not key.strip():
            raise UsageProblem(f"--set {item!r} is not key=value", hint=_SET_HINT)
        yield key.strip(), yaml_text.scalar(value)


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value and prefix + str(key) != "data.columns":
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
