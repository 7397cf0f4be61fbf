"""From a request to drafts of runs: everything decided and rendered, nothing written. What --dry-run shows."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import secrets
import sys
import time
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from clusterctl import assets, render, todays_names
from clusterctl.adapters.slurm import check_run_dir
from clusterctl.compose import Composed, Recipe, compose, read_recipe, sets_for
from clusterctl.errors import NotFound, UsageProblem
from clusterctl.model import Plan, SchedulerName
from clusterctl.paths import is_dir, is_file, user_path
from clusterctl.pipeline import Start
from clusterctl.plan import make
from clusterctl.runs import find, order, preflight, schedulers, tracker_keys
from clusterctl.schema import Member
from clusterctl.settings import Settings
from trainers.config import Eval

Kind = Literal["train", "test"]

DEFAULT_PROFILE = "cpu"
"""For recipes that name none."""

# Left out of the fingerprint: what neither memory nor correctness of a step depends on.
_NOT_IN_FINGERPRINT = {
    "name": True,
    "kind": True,
    "tracking": True,
    "eval": True,
    "output": True,
    "model": {"adapter_name_or_path"},
    "optim": {"max_steps", "num_train_epochs", "seed", "learning_rate", "warmup_steps", "lr_scheduler_type"},
}


@dataclass(frozen=True)
class Request:
    """What the user asked for on the command line."""

    recipe: str
    profile: str | None = None
    sets: tuple[str, ...] = ()
    name: str = ""
    scheduler: str | None = None
    kind: Kind = "train"
    engine: str | None = None
    force_start: bool = False
    """Whether a stage of RLHF may start from a model that has not learnt to answer."""
    command: tuple[str, ...] = ()


@dataclass(frozen=True)
class Draft:
    """A run that could be submitted as it is: ``script`` is what the scheduler would get, byte for byte."""

    run_id: str
    composed: Composed
    plan: Plan
    script: str
    fingerprint: str
    notes: tuple[str, ...] = ()
    """What the user should know of recipe and options, such as old names in them."""


def draft(request: Request, settings: Settings) -> list[Draft]:
    """Everything decided and rendered, nothing written. One draft, or one for each member of a pipeline.

    Raises:
        UsageProblem, NotFound: every error of recipe, profile, site and options.
    """
    recipe = read_recipe(request.recipe)
    scheduler = schedulers.choose(request.scheduler or settings.scheduler)
    sets, notes = todays_names.of_sets(request.sets)
    request = dataclasses.replace(request, sets=sets)
    if recipe.pipeline:
        first, *others = _draft_all(request, recipe, settings, scheduler)
    else:
        if request.engine:
            request = dataclasses.replace(request, sets=(*request.sets, f"engine={request.engine}"))
        first, *others = [_draft_one(request, recipe, settings, scheduler)]
    return [dataclasses.replace(first, notes=(*notes, *first.notes)), *others]


def _draft_all(request: Request, recipe: Recipe, settings: Settings, scheduler: SchedulerName) -> list[Draft]:
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
        done[called] = _draft_one(asked, own, settings, scheduler, member.set, start), start
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
    before, earlier = done[name]
    return Start(called, name, before.composed.config, root / before.run_id / "final_model", earlier)


def _draft_one(
    request: Request,
    recipe: Recipe,
    settings: Settings,
    scheduler: SchedulerName,
    extra: Mapping[str, Any] | None = None,
    start: Start | None = None,
) -> Draft:
    site = settings.site()
    run_id = _run_id(request.name or recipe.name, settings.output_root)
    if recipe.pipeline:
        raise UsageProblem(
            f"recipe {recipe.name} is a pipeline and cannot stand inside another", hint="name its members"
        )
    composed = compose(
        recipe,
        request.profile or recipe.profile or DEFAULT_PROFILE,
        site,
        request.sets,
        name=request.name,
        kind=request.kind,
        extra=extra,
        start=start,
    )
    if start is None:
        composed = _resolve_adapter(composed, settings.output_root)
    if not request.force_start:
        order.check(composed.config, start)
    tracker_keys.check(composed, site)
    if request.kind == "test":
        composed = _as_test(composed)
    unseen = preflight.check(composed.config, start.planned if start else frozenset())
    if scheduler == "slurm":
        check_run_dir(settings.output_root / run_id)
    plan = make.make(composed, site, scheduler, python=sys.executable)
    template = assets.find("job_templates", "job.sh")
    script = render.render(plan, template.path)
    mark = fingerprint(composed, start.base if start else None)
    return Draft(run_id, composed, plan, script, mark, (*composed.notes, *unseen))


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


def fingerprint(composed: Composed, base: str | None = None) -> str:
    """Names the configuration as far as fitting and working go: the same for a test and its full run.

    ``base`` stands for the model of a pipeline's member, whose directory has another name every time.
    """
    config = composed.config.model_dump(mode="json", exclude=_NOT_IN_FINGERPRINT)  # type: ignore[arg-type]
    config["model"]["model_name_or_path"] = base or config["model"]["model_name_or_path"]
    config["data"] = {k: v for k, v in config["data"].items() if k not in ("eval_files", "validation_split")}
    profile = composed.profile
    hardware = [profile.gpu_type, profile.gpus_per_node, profile.nodes, profile.mem]
    text = json.dumps([config, hardware], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _run_id(name: str, root: Path) -> str:
    """``sft-20261122-a3f9``: a name that any file system and any shell takes, the day, four random digits."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")[:32].strip("-") or "run"
    while True:
        run_id = f"{slug}-{time.strftime('%Y%m%d')}-{secrets.token_hex(2)}"
        if not os.path.lexists(root / run_id):
            return run_id
