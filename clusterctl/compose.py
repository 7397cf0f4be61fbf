"""recipe + profile + site + overrides -> RunConfig: who says what, in which order, and every error at once.

Later layers win: the schema's defaults, the site's tracking, the recipe, the profile, the profile's ``set``,
``--set``. With the profile that a recipe names itself, the recipe wins over the ``set``: it was written for that one.
What nobody says of batch, checkpointing, CPUs and memory is made to measure for the card (``plan.derive``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clusterctl import profiles, todays_names
from clusterctl.errors import UsageProblem
from clusterctl.layers import SET_HINT, Layers, leaves, parse_sets
from clusterctl.local_paths import make_absolute
from clusterctl.models.shape import Shape
from clusterctl.plan import agree, derive
from clusterctl.plan.estimates import Memory
from clusterctl.plan.inventory import Inventory, Offer
from clusterctl.profiles import NOTHING, Asked
from clusterctl.recipe import Recipe
from clusterctl.schema import Profile, Site
from clusterctl.validation import nearest, of_other_stages, validate
from trainers.config import RunConfig, schema_of
from trainers.config.section import keys
from trainers.hardware import GpuType

if TYPE_CHECKING:
    from clusterctl.pipeline import Start

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

MADE_TO_MEASURE = "made to measure"
"""Where values come from that nobody said."""

CAREFUL = "careful: model or card is not known"
"""Where those come from that could not be made to measure."""


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
    shape: Shape | None = None
    """The model, where it is known."""
    gets: derive.Card = derive.UNKNOWN
    """The GPU it was made to measure for."""
    memory: Memory | None = None
    """An estimate; None where the model is not known."""
    mem_said: bool = True
    """Whether ``profile.mem`` was said, and not reckoned."""
    asked: Asked = NOTHING

    @property
    def card(self) -> GpuType | None:
        """The type of GPU, where it is known."""
        return self.gets.gpu_type

    @property
    def usable(self) -> int | None:
        """Bytes that one card can be filled with."""
        return self.gets.usable

    @property
    def offer(self) -> Offer | None:
        """Where it would run, as the inventory has it."""
        return self.gets.offer


def read_profile(name: str, sets: Sequence[str] = ()) -> Profile:
    """Find and read a profile, with the ``--set profile.key=value`` overrides applied.

    Raises:
        NotFound, UsageProblem: no such profile, or every error in it.
    """
    source = profiles.find(name)
    layers = Layers(dict(source.values), {key: source.where(key) for key in source.values})
    for key, value in parse_sets([item for item in sets if item.strip().startswith("profile.")]):
        layers.put(key.removeprefix("profile."), value, f"--set {key}")
    return validate(Profile, layers.values, layers.where, what=f"profile {source.name}")


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
    asked: Asked = NOTHING,
    inventory: Callable[[], Inventory] | None = None,
    shape_of: Callable[[RunConfig, str], Shape | None] | None = None,
    longest_row: Callable[[RunConfig], int | None] | None = None,
) -> Composed:
    """Join the layers, validate the result, and make to measure what nobody said.

    ``extra`` is what a pipeline sets for this member, ``start`` what it starts from, which no layer outdoes.
    ``asked`` is what options say of the hardware. ``inventory`` looks at what there is to run on, where the profile has
    GPUs, and ``shape_of`` finds the model of that name for a run; without them the careful values stand.
    ``longest_row`` finds the tokens that no row of a run has more of; without it every row may be as long as
    data.max_length.

    Raises:
        UsageProblem: every error at once, with where each value came from and the nearest valid key.
        NoFit: the profile is larger than what there is, with the numbers.
    """
    profile = profiles.with_asked(read_profile(profile_name, sets), profile_name, asked)
    todays_names.check_profile(recipe.said, recipe.document.where, profile, profile_name)
    there = inventory() if inventory and profile.gpus_per_node else None
    choices = derive.cards(profile, there)
    profile = derive.with_card(profile, choices)
    layers = _said(recipe, profile, profile_name, site, sets, extra)
    if start:
        for key, value in start.model(layers.values).items():
            layers.put(f"model.{key}", value, f"pipeline, after {start.name}")
    layers.put("name", name or recipe.said.values.get("name") or recipe.name, "--name" if name else "recipe")
    layers.put("kind", kind, "command")
    agreed = _agreed(layers, profile)
    config = validate(schema_of(layers.values), layers.values, layers.where, what=f"recipe {recipe.name}")
    steps = config.optim.max_steps
    config = make_absolute(config, start.planned if start else frozenset())
    longest = longest_row(config) if longest_row and shape_of else None
    sized, shape = _sized(config, layers, choices, agreed, shape_of, start, longest)
    layers.origins |= dict.fromkeys(sized.keys, MADE_TO_MEASURE if sized.memory and sized.card.usable else CAREFUL)
    optim = sized.config.optim
    rows = optim.per_device_train_batch_size * optim.gradient_accumulation_steps * config.parallel.world_size
    return Composed(
        sized.config.model_copy(update={"optim": optim.model_copy(update={"train_batch_size": rows})}),
        derive.with_memory(derive.with_type(profile, sized.card, there), sized),
        recipe.name,
        profile_name,
        layers.origins,
        full_steps=steps if steps > 0 else None,
        full_time=profile.time,
        notes=tuple(recipe.said.notes),
        shape=shape,
        gets=sized.card,
        memory=sized.memory,
        mem_said=profile.mem is not None,
        asked=asked,
    )


def _said(
    recipe: Recipe,
    profile: Profile,
    profile_name: str,
    site: Site,
    sets: Sequence[str],
    extra: Mapping[str, Any] | None,
) -> Layers:
    """All that is said, the weakest first."""
    layers = Layers()
    for key, value in site.tracking.items():
        layers.put(f"tracking.{key}", value, "site file")
    said = {key: (value, _allowed(key, recipe.where(key))) for key, value in leaves(recipe.values)}
    by_profile = f"profile {profile_name}, set"
    fitting = {key: (value, _allowed(key, by_profile)) for key, value in leaves(profile.set)}
    for layer in (fitting, said) if profile_name == recipe.profile else (said, fitting):
        layers.rank += 1
        for key, (value, origin) in layer.items():
            layers.put(key, value, origin)
    for key, value in _hardware(profile).items():
        layers.put(key, value, f"profile {profile_name}")
    layers.rank += 1
    for key, value in leaves(extra or {}):
        layers.put(key, value, _allowed(key, "pipeline"))
    layers.rank += 1
    known, unknown = list(keys(schema_of(layers.values))), []
    for item, whole in parse_sets(sets):
        for key, value in leaves({item: whole}):
            if key.startswith("profile."):
                continue
            if key not in known and not key.startswith("data.columns."):
                unknown.append(f"--set {key}: there is no such key{of_other_stages(key) or nearest(key, known)}")
            else:
                layers.put(key, value, _allowed(key, f"--set {key}"))
    if unknown:
        raise UsageProblem("\n  ".join(unknown), hint=SET_HINT)
    return layers


def _agreed(layers: Layers, profile: Profile) -> agree.Agreed | None:
    """The batch that follows from what was said, put where the schema looks for it."""
    optim = layers.values.get("optim", {})
    if not isinstance(optim, dict):
        return None
    said = {key: one for key in (agree.ROWS, agree.BATCH, agree.ACCUMULATION) if (one := layers.said(key))}
    method = layers.values.get("method")
    group = method.get("num_generations", 1) if isinstance(method, dict) else 1
    found = agree.agree(
        said,
        profile.nodes * profile.processes,
        gpus=profile.gpus_per_node > 0,
        group=group if isinstance(group, int) and group > 0 else 1,
    )
    if found:
        # The product is right in any case, so whoever validates sees what will be.
        numbers = {agree.ROWS: found.rows, agree.BATCH: found.batch, agree.ACCUMULATION: found.accumulation}
        section = layers.values.setdefault("optim", {})
        section |= {key.rpartition(".")[2]: number for key, number in numbers.items()}
        strongest = max(said.values(), key=lambda one: one.rank, default=None)
        for key, one in said.items():
            if strongest and one.value != numbers[key]:
                layers.origins[key] = f"follows from {strongest.origin}"
    return found


def _sized(
    config: RunConfig,
    layers: Layers,
    choices: list[derive.Card],
    agreed: agree.Agreed | None,
    shape_of: Callable[[RunConfig, str], Shape | None] | None,
    start: Start | None,
    longest_row: int | None,
) -> tuple[derive.Sized, Shape | None]:
    shape = reference = None
    if shape_of:
        # What is planned has no files yet: it is the model at the beginning of the line.
        shape = shape_of(config, start.base if start else config.model.model_name_or_path)
        if judge := getattr(config.method, "reward_model", None):
            reference = shape_of(config, str(judge))
    gpus = config.parallel.device == "cuda"
    sized = derive.sized(
        config,
        choices,
        shape,
        reference,
        batch_open=agreed is not None and agreed.open,
        checkpointing_open=gpus and "model.gradient_checkpointing" not in layers.origins,
        eval_open=gpus and "optim.per_device_eval_batch_size" not in layers.origins,
        longest_row=longest_row,
    )
    return sized, shape


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
