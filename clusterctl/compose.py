"""recipe + profile + site + overrides -> RunConfig: who says what, in which order, and every error at once.

Later layers win: the schema's defaults, the site's tracking, the recipe, the profile, the profile's ``set``,
``--set``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from clusterctl import assets, yaml_text
from clusterctl.errors import UsageProblem
from clusterctl.paths import is_dir, is_file, user_path
from clusterctl.schema import Profile, Site, Stage
from clusterctl.validation import keys, nearest, validate
from trainers.config import RunConfig, schema_of

_RECIPE_ONLY = {"description", "profile", "chain", "name"}
_DECIDED_ELSEWHERE = {
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
    """A recipe file: what it sets for the trainer, its default profile, or the chain that it is."""

    name: str
    document: yaml_text.Document
    profile: str | None
    chain: tuple[Stage, ...]

    @property
    def values(self) -> dict[str, Any]:
        """The trainer's part of the file."""
        return {k: v for k, v in self.document.values.items() if k not in _RECIPE_ONLY}


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
    chain = values.get("chain")
    stages: list[Stage] = []
    if chain is not None:
        if not isinstance(chain, list) or not chain or set(values) - _RECIPE_ONLY:
            raise UsageProblem(
                f"{document.where('chain')}: a chain is a list of recipes, beside it only `description` and `profile`",
                hint="write `chain: [{recipe: basic}, {recipe: sft, continue_from: basic}]`",
            )
        for number, item in enumerate(chain):
            where = document.where("chain")
            data = item if isinstance(item, dict) else {"recipe": item}
            stages.append(validate(Stage, data, lambda _, w=where: w, what=f"{where}, member {number + 1}"))  # type: ignore[misc]
    return Recipe(
        asset.name,
        document,
        str(values["profile"]) if values.get("profile") else None,
        tuple(stages),
    )


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
) -> Composed:
    """Join the layers and validate the result. ``extra`` holds what the command itself decides.

    Raises:
        UsageProblem: every error at once, with where each value came from and the nearest valid key.
    """
    profile = read_profile(profile_name, sets)
    layers = _Layers()
    for key, value in site.tracking.items():
        layers.put(f"tracking.{key}", value, "site file")
    for key, value in _leaves(recipe.values):
        layers.put(key, value, _allowed(key, recipe.document.where(key)))
    for key, value in _hardware(profile).items():
        layers.put(key, value, f"profile {profile_name}")
    for key, value in _leaves(profile.set):
        layers.put(key, value, _allowed(key, f"profile {profile_name}, set"))
    for key, value in _leaves(extra or {}):
        layers.put(key, value, _allowed(key, "chain"))
    known = list(keys(schema_of(layers.values)))
    for item, whole in _parse_sets(sets):
        for key, value in _leaves({item: whole}):
            if key.startswith("profile."):
                continue
            if key not in known and not key.startswith("data.columns."):
                raise UsageProblem(f"--set {key}: there is no such key{nearest(key, known)}", hint=_SET_HINT)
            layers.put(key, value, _allowed(key, f"--set {key}"))
    layers.put("name", name or recipe.document.values.get("name") or recipe.name, "--name" if name else "recipe")
    layers.put("kind", kind, "command")
    config = validate(schema_of(layers.values), layers.values, layers.where, what=f"recipe {recipe.name}")
    steps = config.optim.max_steps
    return Composed(
        _absolute_paths(config),
        profile,
        recipe.name,
        profile_name,
        layers.origins,
        full_steps=steps if steps > 0 else None,
        full_time=profile.time,
    )


_SET_HINT = "write --set section.key=value, for example --set optim.learning_rate=5e-5 or --set profile.time=2:00:00"


def _allowed(key: str, origin: str) -> str:
    if instead := _DECIDED_ELSEWHERE.get(key):
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


def _absolute_paths(config: RunConfig) -> RunConfig:
    """Local files by absolute path, since the job runs elsewhere. Missing data files and models end here."""
    missing: list[str] = []

    def file(text: str, key: str) -> str:
        path = user_path(text)
        if not is_file(path):
            missing.append(f"{key}: there is no file {path}")
        return str(path)

    def maybe_directory(text: str, key: str) -> str:
        path = user_path(text)
        if is_dir(path):
            return str(path)
        if text.startswith(("/", "./", "../", "~")) or text.count("/") > 1:
            missing.append(f"{key}: there is no directory {path}")
        return text

    data, model = config.data, config.model
    result = config.model_copy(
        update={
            "data": data.model_copy(
                update={
                    "train_files": [file(f, "data.train_files") for f in data.train_files],
                    "eval_files": [file(f, "data.eval_files") for f in data.eval_files],
                }
            ),
            "model": model.model_copy(
                update={
                    "model_name_or_path": maybe_directory(model.model_name_or_path, "model.model_name_or_path"),
                    "chat_template": model.chat_template and file(model.chat_template, "model.chat_template"),
                }
            ),
        }
    )
    if missing:
        raise UsageProblem(
            "\n  ".join(missing), hint="paths are relative to the working directory; set them with --set"
        )
    return result
