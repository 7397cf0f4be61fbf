"""From a request to drafts of runs: everything decided, nothing written. What --dry-run shows."""

from __future__ import annotations

import dataclasses
import os
import re
import secrets
import sys
import time
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clusterctl import assets, render, todays_names
from clusterctl.compose import Composed, compose
from clusterctl.errors import NoFit, NotFound, UsageProblem
from clusterctl.model import Plan, SchedulerName
from clusterctl.models import of_run
from clusterctl.models.shape import Shape
from clusterctl.paths import is_dir, is_file, user_path
from clusterctl.plan import make
from clusterctl.plan.formats import longest
from clusterctl.plan.inventory import Inventory
from clusterctl.profiles import Asked, candidates
from clusterctl.recipe import Recipe, read_recipe, sets_for
from clusterctl.runs import find, order, preflight, rows, schedulers, tracker_keys
from clusterctl.runs import inventory as look
from clusterctl.runs.asked import of_options
from clusterctl.runs.fingerprint import fingerprint
from clusterctl.runs.request import Request
from clusterctl.schema import Member
from clusterctl.settings import Settings
from trainers.config import Eval, RunConfig

if TYPE_CHECKING:
    from clusterctl.pipeline import Start
    from clusterctl.runs.choose import Choice


@dataclass(frozen=True)
class Draft:
    """A run that could be submitted as it is."""

    run_id: str
    composed: Composed
    plan: Plan
    fingerprint: str
    notes: tuple[str, ...] = ()
    """What the user should know of recipe and options, such as old names in them."""
    choice: Choice | None = None
    """How the profile was chosen, where nobody named one."""
    sweep: str = ""
    """The sweep that it belongs to, ``swept`` the ``key=value`` that are its own there, ``parallel`` the limit."""
    swept: tuple[str, ...] = ()
    parallel: int | None = None

    @cached_property
    def script(self) -> str:
        """What the scheduler would get, byte for byte. A plan does without: to render takes longer than to plan.

        Raises:
            UsageProblem: the template is broken, or a value cannot stand in it.
        """
        return render.render(self.plan, assets.find("job_templates", "job.sh").path)


@dataclass(frozen=True)
class _Where:
    """What all members of a pipeline share. ``inventory`` looks at the hardware, once, when that is needed."""

    scheduler: SchedulerName
    asked: Asked
    inventory: Callable[[], Inventory]
    shape_of: Callable[[RunConfig, str], Shape | None]


def draft(request: Request, settings: Settings, inventory: Inventory | None = None) -> list[Draft]:
    """Everything decided, nothing written. One draft, or one for each member of a pipeline.

    ``inventory`` is what there is to run on, for who knows it already.

    Raises:
        UsageProblem, NotFound: every error of recipe, profile, site and options.
        NoFit: what is asked for is larger than what there is, or the run fits nowhere.
        Unavailable: no profile is named, and Slurm does not say what there is.
    """
    recipe = read_recipe(request.recipe)
    scheduler = schedulers.choose(request.scheduler or settings.scheduler)
    site = settings.site()
    where = _Where(
        scheduler,
        of_options(request.gpu_type, request.gpus, request.gpu_ids, request.mixed, scheduler),
        cache(lambda: inventory or look.inventory(scheduler, site)),
        of_run.known(site.hugging_face.home),
    )
    sets, notes = todays_names.of_sets(request.sets)
    request = dataclasses.replace(request, sets=sets)
    if recipe.pipeline:
        first, *others = _draft_all(request, recipe, settings, where)
    else:
        if request.engine:
            request = dataclasses.replace(request, sets=(*request.sets, f"engine={request.engine}"))
        first, *others = [_draft_one(request, recipe, settings, where)]
    return [dataclasses.replace(first, notes=(*notes, *first.notes)), *others]


def draft_or_nearest(request: Request, settings: Settings) -> tuple[list[Draft], Choice | None]:
    """The drafts; where nothing will do, under the profile that lacks least, with all that was looked at."""
    try:
        return draft(request, settings), None
    except NoFit as e:
        from clusterctl.runs.choose import NothingFits

        if not isinstance(e, NothingFits):
            raise
        nearest = dataclasses.replace(request, profile=e.choice.profile, gpu_type=None, gpus=None)
        return draft(nearest, settings), e.choice


def _draft_all(request: Request, recipe: Recipe, settings: Settings, where: _Where) -> list[Draft]:
    """A draft for each member; each knows what the one that it starts from is going to save, and where."""
    if request.engine:
        raise UsageProblem(
            f"--engine is for one stage, and {recipe.name} is a pipeline",
            hint="write `set: {engine: verl}` at the member that is meant",
        )
    members = [(member, read_recipe(member.recipe)) for member in recipe.pipeline]
    for item in request.sets:
        if not any(sets_for(own, [item]) for _, own in members):
            raise UsageProblem(
                f"--set {item}: no member of {recipe.name} has such a key",
                hint=f"its members are {', '.join(own.name for _, own in members)}",
            )
    done: dict[str, tuple[Draft, Start | None]] = {}
    for member, own in members:
        called = member.name or own.name
        if called in done:
            raise UsageProblem(f"{recipe.document.path}: two members are called {called}", hint="give one a `name`")
        start = _start(recipe, called, member, done, settings.output_root)
        asked = dataclasses.replace(
            request,
            name=f"{request.name}-{called}" if request.name else called,
            profile=request.profile or member.profile or recipe.profile,
            sets=tuple(sets_for(own, request.sets)),
        )
        done[called] = _draft_one(asked, own, settings, where, member.set, start), start
    return [one for one, _ in done.values()]


def _start(
    recipe: Recipe, called: str, member: Member, done: dict[str, tuple[Draft, Start | None]], root: Path
) -> Start | None:
    """What this member starts from; None for the model that its own recipe names."""
    if member.starts_from == "none" or not (done or member.starts_from):
        return None
    name = member.starts_from or next(reversed(done))
    if name not in done:
        raise UsageProblem(
            f"{recipe.document.where('pipeline')}: {called} starts from {name!r}, which is not before it",
            hint=f"before it are: {', '.join(done) or 'none'}",
        )
    if ours := {"model.model_name_or_path", "model.adapter_name_or_path"} & set(member.set):
        raise UsageProblem(
            f"{recipe.document.where('pipeline')}: {called} sets {min(ours)}, but starts from {name}",
            hint="write `starts_from: none`, or drop the key",
        )
    from clusterctl.pipeline import Start

    before, earlier = done[name]
    return Start(called, name, before.composed.config, root / before.run_id / "final_model", earlier)


def _draft_one(
    request: Request,
    recipe: Recipe,
    settings: Settings,
    where: _Where,
    extra: Mapping[str, Any] | None = None,
    start: Start | None = None,
) -> Draft:
    site, scheduler = settings.site(), where.scheduler
    run_id = new_id(request.name or recipe.name, settings.output_root)
    if recipe.pipeline:
        raise UsageProblem(
            f"recipe {recipe.name} is a pipeline and cannot stand inside another", hint="name its members"
        )

    longest_row = rows.longest()

    @cache
    def under(profile: str) -> Composed:
        composed = compose(
            recipe,
            profile,
            site,
            request.sets,
            name=request.name,
            kind=request.kind,
            extra=extra,
            start=start,
            asked=where.asked,
            inventory=where.inventory,
            shape_of=where.shape_of,
            longest_row=longest_row,
        )
        return composed if start else _resolve_adapter(composed, settings.output_root)

    choice, profile, alone = None, request.profile or recipe.profile, tuple[str, ...]()
    if profile is None:
        names = candidates(where.inventory(), where.asked)
        if where.inventory().problem and start is None:
            alone = (f"no GPU is used: {where.inventory().problem}",)
        if len(names) > 1:
            from clusterctl.runs import choose

            choice = choose.choose(names, under, where.inventory(), request, settings, scheduler)
        profile = choice.profile if choice else names[0]
    composed = under(profile)
    if not request.force_start:
        order.check(composed.config, start)
    tracker_keys.check(composed, site)
    if request.kind == "test":
        composed = _as_test(composed)
    unseen = preflight.check(composed.config, start.planned if start else frozenset())
    if scheduler == "slurm":
        from clusterctl.adapters.slurm import check_run_dir

        check_run_dir(settings.output_root / run_id)
    plan = make.make(composed, site, scheduler, python=sys.executable)
    mark = fingerprint(composed, start.base if start else None)
    notes = (*composed.notes, *alone, *unseen, *_beyond_positions(composed, longest_row), *_own_template())
    return Draft(run_id, composed, plan, mark, notes, choice)


def _beyond_positions(composed: Composed, longest_row: Callable[[RunConfig], int | None]) -> tuple[str, ...]:
    """Rows that are longer than any the model was trained on are allowed, and rarely meant."""
    shape, config = composed.shape, composed.config
    if shape is None or not shape.exact or config.model.rope_scaling:
        return ()
    most, length = shape.max_position_embeddings, longest(config)
    if length <= most or (longest_row(config) or length) <= most:
        return ()
    return (
        f"{config.name}: rows of up to {length} tokens, and {shape.name} was made for {most} "
        "(max_position_embeddings): shorten data.max_length or set model.rope_scaling",
    )


def _own_template() -> tuple[str, ...]:
    """A template is a program: whose it is must not go unsaid where the working directory or a variable decides."""
    found = assets.find("job_templates", "job.sh")
    if found.origin not in ("working directory", "CLUSTERCTL_PATH"):
        return ()
    return (f"the job script is made from {found.path} ({found.origin}), not from the shipped template",)


TEST_STEPS = 50
_TEST_TIME = 3600


def _as_test(composed: Composed) -> Composed:
    """The same run, 50 steps long, without evaluation; an hour at most, so that the queue lets it in early."""
    config = composed.config
    steps = TEST_STEPS if config.optim.max_steps < 0 else min(TEST_STEPS, config.optim.max_steps)
    short = config.model_copy(
        update={
            "optim": config.optim.model_copy(update={"max_steps": steps}),
            "data": config.data.model_copy(update={"eval_files": [], "validation_split": 0.0}),
            "eval": Eval(),
            "output": config.output.model_copy(update={"save_steps": steps, "logging_steps": 5}),
        }
    )
    time_limit = min(composed.profile.time, max(_TEST_TIME, composed.profile.signal_lead + 60))
    profile = composed.profile.model_copy(update={"time": time_limit})
    return dataclasses.replace(composed, config=short, profile=profile)


def _resolve_adapter(composed: Composed, root: Path) -> Composed:
    """``model.adapter_name_or_path`` may be a directory or a run, whose ``final_model`` is meant."""
    text = composed.config.model.adapter_name_or_path
    if text is None:
        return composed
    path = user_path(text)
    if not is_dir(path):
        try:
            path = find.one(root, text).run_dir / "final_model"
        except NotFound as e:
            raise UsageProblem(
                f"model.adapter_name_or_path: {text!r} is neither a directory nor a run", hint=e.hint
            ) from e
        except UsageProblem as e:
            raise UsageProblem(f"model.adapter_name_or_path: {e.message}", hint=e.hint) from e
    if not is_file(path / "adapter_config.json"):
        raise UsageProblem(
            f"model.adapter_name_or_path: {path} holds no adapter (no adapter_config.json)",
            hint="name the final_model of a LoRA run, or the run itself",
        )
    model = composed.config.model.model_copy(update={"adapter_name_or_path": str(path)})
    return dataclasses.replace(composed, config=composed.config.model_copy(update={"model": model}))


def new_id(name: str, root: Path) -> str:
    """``sft-20261122-a3f9``: a name that any file system and any shell takes, the day, four random digits."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")[:32].strip("-") or "run"
    while True:
        run_id = f"{slug}-{time.strftime('%Y%m%d')}-{secrets.token_hex(2)}"
        if not os.path.lexists(root / run_id):
            return run_id
