"""From a request to a job: draft (pure but for reading files), then hand over. A dry run is a draft, shown."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import secrets
import socket
import sys
import time
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from clusterctl import assets, render, yaml_text
from clusterctl.adapters import process, store
from clusterctl.adapters.slurm import check_run_dir
from clusterctl.compose import Composed, Recipe, compose, read_recipe
from clusterctl.errors import ClusterctlError, NotFound, Rejected, UsageProblem
from clusterctl.model import JobEntry, JobState, Plan, Record, SchedulerName, Submission
from clusterctl.plan import make
from clusterctl.runs import find, preflight, schedulers, status
from clusterctl.runs.find import Run
from clusterctl.settings import Settings

Kind = Literal["train", "test"]

# Left out of the fingerprint: what neither memory nor correctness of a step depends on.
_NOT_IN_FINGERPRINT = {
    "name": True,
    "kind": True,
    "tracking": True,
    "eval": True,
    "output": True,
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
        return [_draft_one(request, recipe, settings, scheduler, {}, _run_id(request.name or recipe.name))]
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
        profile = request.profile or recipe.profile
        asked = dataclasses.replace(request, name=name, profile=profile)
        named[stage.recipe] = _draft_one(asked, member, settings, scheduler, extra, _run_id(name))
        drafts.append(named[stage.recipe])
    return drafts


def _draft_one(
    request: Request,
    recipe: Recipe,
    settings: Settings,
    scheduler: SchedulerName,
    extra: Mapping[str, Any],
    run_id: str,
) -> Draft:
    site = settings.site()
    if recipe.chain:
        raise UsageProblem(f"recipe {recipe.name} is a chain and cannot stand inside another", hint="name its members")
    composed = compose(
        recipe,
        request.profile or recipe.profile,
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
    path = Path(text).expanduser()
    if not path.is_dir():
        try:
            path = find.one(root, text).run_dir / "final_model"
        except (NotFound, UsageProblem) as e:
            raise UsageProblem(
                f"model.adapter_name_or_path: {text!r} is neither a directory nor a run", hint=e.hint
            ) from e
    if not (path / "adapter_config.json").is_file():
        raise UsageProblem(
            f"model.adapter_name_or_path: {path} holds no adapter (no adapter_config.json)",
            hint="name the final_model of a LoRA run, or the run itself",
        )
    model = composed.config.model.model_copy(update={"adapter_name_or_path": str(path.absolute())})
    return dataclasses.replace(composed, config=composed.config.model_copy(update={"model": model}))


def fingerprint(composed: Composed) -> str:
    """Names the configuration as far as fitting and working go: the same for a test and its full run."""
    config = composed.config.model_dump(mode="json", exclude=_NOT_IN_FINGERPRINT)  # type: ignore[arg-type]
    config["data"] = {k: v for k, v in config["data"].items() if k not in ("eval_files", "validation_split")}
    profile = composed.profile
    hardware = [profile.gpu_type, profile.gpus_per_node, profile.nodes, profile.mem]
    text = json.dumps([config, hardware], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def submit(drafts: Sequence[Draft], request: Request, settings: Settings, after: Sequence[Run] = ()) -> list[Run]:
    """Write the run directories and hand the runs over, in order, each waiting for the one before it.

    Raises:
        Rejected: the scheduler refused; the refused run left nothing behind.
        Unavailable: no answer; where it is not known whether the job was queued, the record stays.
    """
    done: list[Run] = []
    waits_for = list(after)
    for one in drafts:
        run = prepare(one, request, settings.output_root, after=[w.record.run_id for w in waits_for])
        try:
            done.append(hand_over(run, waits_for))
        except ClusterctlError as e:
            if not e.maybe_queued:
                store.remove_run_dir(run.run_dir)
                _take_back(done)
            raise
        waits_for = [done[-1]]
    return done


def _take_back(runs: Sequence[Run]) -> None:
    """The rest of a chain was refused: its beginning would train for nothing."""
    for run in runs:
        if ref := status.job_ref(run):
            schedulers.get(run.record.scheduler).cancel([ref])
            note_cancelled(run)


def note_cancelled(run: Run) -> None:
    """Leave the evidence of a cancellation, for the time when the scheduler has forgotten the job."""
    text = json.dumps({"schema": 1, "time": time.time(), "user": process.own_user()})
    store.write_atomic(run.run_dir / status.CANCELLED, text + "\n")


def prepare(one: Draft, request: Request, root: Path, after: Sequence[str] = ()) -> Run:
    """Make the run directory with ``run.yaml``, ``job.sh`` and the record, before anything is submitted."""
    run_id, run_dir = one.run_id, root / one.run_id
    while True:
        try:
            run_dir = store.make_run_dir(root, run_id)
            break
        except FileExistsError:
            run_id = _run_id(one.composed.config.name)
    config = one.composed.config
    record = Record(
        run_id=run_id,
        name=config.name,
        stage=config.stage,
        kind=request.kind,
        recipe=one.composed.recipe_name,
        profile=one.composed.profile_name,
        scheduler=one.plan.scheduler,
        resources=one.plan.resources,
        fingerprint=one.fingerprint,
        created_at=time.time(),
        user=process.own_user(),
        host=socket.gethostname(),
        command=request.command,
        world_size=one.plan.world_size,
        max_steps=one.composed.full_steps,
        num_train_epochs=config.optim.num_train_epochs,
        full_time_limit=one.composed.full_time,
        after=tuple(after),
    )
    try:
        store.write_atomic(run_dir / "run.yaml", yaml_text.dump(config.model_dump(mode="json")))
        store.write_atomic(run_dir / "job.sh", one.script, mode=0o755)
        store.write_record(run_dir, record)
    except ClusterctlError:
        store.remove_run_dir(run_dir)
        raise
    return Run(run_dir, record)


def hand_over(run: Run, after: Sequence[Run] = ()) -> Run:
    """Give the run to its scheduler. The record knows of it before and after.

    Raises:
        Rejected, Unavailable, NoFit: as the scheduler says.
    """
    adapter = schedulers.get(run.record.scheduler)
    dependencies = _dependencies(run, after)
    entry = JobEntry(token=secrets.token_hex(8), requested_at=time.time())
    asked = dataclasses.replace(run.record, jobs=(*run.record.jobs, entry))
    store.write_record(run.run_dir, asked)
    submission = Submission(
        run_id=asked.run_id,
        run_dir=run.run_dir,
        name=asked.name,
        token=entry.token,
        resources=asked.resources,
        after=dependencies,
    )
    try:
        job_id = adapter.submit(submission)
    except ClusterctlError as e:
        if not e.maybe_queued:
            store.write_record(run.run_dir, run.record)
        raise
    return find.confirm(Run(run.run_dir, asked), job_id)


def _dependencies(run: Run, after: Sequence[Run]) -> tuple[str, ...]:
    """Job ids that must end well first. Parents that ended well already need no dependency."""
    ids: list[str] = []
    for parent, state in zip(after, status.look(after), strict=True):
        if state.state is JobState.COMPLETED:
            continue
        job = parent.record.job
        if state.gone or job is None or job.job_id is None:
            raise Rejected(
                f"{parent.record.run_id} is {state.state}: what comes after it would never start",
                hint=f"clusterctl resume {parent.record.run_id} first",
            )
        if parent.record.scheduler != run.record.scheduler:
            raise UsageProblem(
                f"{parent.record.run_id} runs on {parent.record.scheduler}, this one on {run.record.scheduler}",
                hint=f"add --scheduler {parent.record.scheduler}",
            )
        ids.append(job.job_id)
    return tuple(ids)


def _run_id(name: str) -> str:
    """``sft-20261122-a3f9``: a name that any file system and any shell takes, the day, four random digits."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")[:32].strip("-") or "run"
    return f"{slug}-{time.strftime('%Y%m%d')}-{secrets.token_hex(2)}"
