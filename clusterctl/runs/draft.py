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

from clusterctl import assets, render
from clusterctl.adapters.slurm import check_run_dir
from clusterctl.compose import Composed, Recipe, compose, read_recipe
from clusterctl.errors import NotFound, UsageProblem
from clusterctl.model import Plan, SchedulerName
from clusterctl.paths import is_dir, is_file, user_path
from clusterctl.plan import make
from clusterctl.runs import find, preflight, schedulers
from clusterctl.settings import Settings

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
    command: tuple[str, ...] = ()


@dataclass(frozen=True)
class Draft:
    """A run that could be submitted as it is: ``script`` is what the scheduler would get, byte for byte."""

    run_id: str
    composed: Composed
    plan: Plan
    script: str
    fingerprint: str


def draft(request: Request, settings: Settings) -> list[Draft]:
    """Everything decided and rendered, nothing written. One draft, or several for a chain.

    Raises:
        UsageProblem, NotFound: every error of recipe, profile, site and options.
    """
    recipe = read_recipe(request.recipe)
    scheduler = schedulers.choose(request.scheduler or settings.scheduler)
    if not recipe.chain:
        return [_draft_one(request, recipe, settings, scheduler, {})]
    drafts: list[Draft] = []
    named: dict[str, Draft] = {}
    for stage in recipe.chain:
        member = read_recipe(stage.recipe)
        extra: dict[str, Any] = dict(stage.set)
        if stage.continue_from:
            before = named.get(stage.continue_from)
            if before is None:
                raise UsageProblem(
                    f"{recipe.document.path}: {stage.recipe} continues {stage.continue_from!r}, which is not before it",
                    hint=f"before it are: {', '.join(named) or 'none'}",
                )
            extra["model.adapter_name_or_path"] = str(settings.output_root / before.run_id / "final_model")
        name = f"{request.name}-{stage.recipe}" if request.name else member.name
        asked = dataclasses.replace(request, name=name, profile=request.profile or recipe.profile)
        named[stage.recipe] = _draft_one(asked, member, settings, scheduler, extra)
        drafts.append(named[stage.recipe])
    return drafts


def _draft_one(
    request: Request,
    recipe: Recipe,
    settings: Settings,
    scheduler: SchedulerName,
    extra: Mapping[str, Any],
) -> Draft:
    site = settings.site()
    run_id = _run_id(request.name or recipe.name, settings.output_root)
    if recipe.chain:
        raise UsageProblem(f"recipe {recipe.name} is a chain and cannot stand inside another", hint="name its members")
    composed = compose(
        recipe,
        request.profile or recipe.profile or DEFAULT_PROFILE,
        site,
        request.sets,
        name=request.name,
        kind=request.kind,
        extra=extra,
    )
    if "model.adapter_name_or_path" not in extra:
        composed = _resolve_adapter(composed, settings.output_root)
    if request.kind == "test":
        composed = _as_test(composed)
    preflight.check(composed.config)
    if scheduler == "slurm":
        check_run_dir(settings.output_root / run_id)
    plan = make.make(composed, site, scheduler, python=sys.executable)
    template = assets.find("job_templates", "job.sh")
    return Draft(run_id, composed, plan, render.render(plan, template.path), fingerprint(composed))


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
        except (NotFound, UsageProblem) as e:
            raise UsageProblem(
                f"model.adapter_name_or_path: {text!r} is neither a directory nor a run", hint=e.hint
            ) from e
    if not is_file(path / "adapter_config.json"):
        raise UsageProblem(
            f"model.adapter_name_or_path: {path} holds no adapter (no adapter_config.json)",
            hint="name the final_model of a LoRA run, or the run itself",
        )
    model = composed.config.model.model_copy(update={"adapter_name_or_path": str(path)})
    return dataclasses.replace(composed, config=composed.config.model_copy(update={"model": model}))


def fingerprint(composed: Composed) -> str:
    """Names the configuration as far as fitting and working go: the same for a test and its full run."""
    config = composed.config.model_dump(mode="json", exclude=_NOT_IN_FINGERPRINT)  # type: ignore[arg-type]
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
