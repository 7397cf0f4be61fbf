"""What a run directory holds for the time after a failure: prepared changes, and where word of it goes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from clusterctl import todays_names, yaml_text
from clusterctl.adapters import store
from clusterctl.compose import DECIDED_ELSEWHERE
from clusterctl.errors import ClusterctlError, Unavailable, UsageProblem
from clusterctl.layers import Layers, leaves, parse_sets
from clusterctl.local_paths import make_absolute
from clusterctl.model import Resources, SchedulerName
from clusterctl.models.shape import Shape
from clusterctl.plan import ladder, memory
from clusterctl.plan.agree import ACCUMULATION, BATCH, ROWS
from clusterctl.runs.draft import Draft
from clusterctl.runs.find import Run
from clusterctl.runs.judge import size
from clusterctl.runs.request import Request
from clusterctl.schema import Site
from clusterctl.validation import validate
from trainers import fixes, notify
from trainers.config import RunConfig, schema_of

MAIL = "mail:"
FIXES = ("oom", "shorter")
"""What ``--auto-fix`` knows: changes against too little memory, and among them shorter rows."""

_FIXED = ("stage", "engine", "model.model_name_or_path", "model.adapter", "optim.optim")
"""Keys that a checkpoint cannot go on without."""

_MAIL = re.compile(r"[A-Za-z0-9._%+-]+(@[A-Za-z0-9.-]+)?")


def allowed(words: Sequence[str] | None) -> tuple[str, ...]:
    """What ``--auto-fix`` names. Raises UsageProblem."""
    found = tuple(dict.fromkeys(word.strip() for item in words or () for word in item.split(",")))
    if unknown := [word for word in found if word not in FIXES]:
        raise UsageProblem(f"--auto-fix {unknown[0]!r} is not known", hint="write --auto-fix oom, or oom,shorter")
    if found and "oom" not in found:
        raise UsageProblem("--auto-fix shorter cuts rows when memory is short", hint="write --auto-fix oom,shorter")
    return found


def told(option: str | None, site: Site, scheduler: SchedulerName) -> str:
    """Where word of a run goes: as the option says, else as the site does; empty: nowhere.

    Raises:
        UsageProblem: no address, no command, or mail without Slurm.
    """
    to, origin = (option, "--notify") if option is not None else (site.notify or "", "notify of the site file")
    to = to.strip()
    if to in ("", "none"):
        return ""
    if to.startswith(MAIL):
        if not _MAIL.fullmatch(to.removeprefix(MAIL)):
            raise UsageProblem(f"{origin}: {to!r} has no mail address", hint="write mail:you@example.org")
        if scheduler == "slurm":
            return to
        if option is None:  # the site's word is for its cluster
            return ""
        raise UsageProblem("--notify mail: is sent by Slurm, and here is none", hint="name a command or a webhook")
    if re.match(r"[a-z]+://", to, re.IGNORECASE):
        if not re.match(r"https?://[^\s/]+", to):
            raise UsageProblem(f"{origin}: {to.partition(':')[0]} is no way to a webhook", hint="write https://...")
        return to
    try:
        program, *words = shlex.split(to)
    except ValueError as e:
        raise UsageProblem(f"{origin}: {to!r} is no command: {e}", hint="close the quotes") from e
    if "/" not in program or program.startswith("~"):
        return to
    return shlex.join([str(Path(program).absolute()), *words])  # it is started in the run directory


def with_word(request: Request, drafts: Sequence[Draft], option: str | None, site: Site) -> tuple[Request, list[Draft]]:
    """The request and its drafts, with the way that word takes. Raises UsageProblem, see ``told``."""
    to = told(option, site, drafts[0].plan.scheduler)
    mail = to.removeprefix(MAIL) if to.startswith(MAIL) else ""
    named = [dataclasses.replace(one, plan=dataclasses.replace(one.plan, mail=mail)) for one in drafts]
    return dataclasses.replace(request, notify=to), named


def write(run_dir: Path, one: Draft, request: Request) -> None:
    """Write the files. Raises Unavailable."""
    config, to = one.composed.config, request.notify
    if to and not to.startswith(MAIL):
        said = {"schema": 1, "to": to, "run_id": one.run_id, "name": config.name}
        text = json.dumps({**said, "hide": one.plan.activation.secret_names}, ensure_ascii=False)
        # An address may hold a key.
        store.write_atomic(run_dir / notify.FILE, text + "\n", mode=0o600)
    if request.auto_fix:
        write_rungs(run_dir, config, request.auto_fix, one.plan.resources, one.composed.shape)


def write_rungs(
    run_dir: Path, config: RunConfig, auto_fix: Sequence[str], resources: Resources, shape: Shape | None
) -> None:
    """Write all that the job may change its ``run.yaml`` to. Raises Unavailable."""
    limit = size(resources.mem) if resources.mem else None

    def host_has_room(changed: RunConfig) -> bool:
        if shape is None:
            return False  # a job that the host's memory kills is no better
        try:
            needs = memory.estimate(changed, shape, None).host_total
        except ClusterctlError:
            return False
        return limit is not None and needs <= limit

    rungs = ladder.ladder(config, shorter="shorter" in auto_fix, host_has_room=host_has_room)
    # Without a GPU a step lies in the host's memory; with one, smaller batches leave it as it is.
    causes = ["cuda_out_of_memory"] + ["host_out_of_memory"] * (config.parallel.device == "cpu")
    said = [{"words": rung.words, "resumes": rung.resumes} for rung in rungs]
    folder = run_dir / fixes.FOLDER
    folder.mkdir(exist_ok=True)
    for number, rung in enumerate(rungs, start=1):
        store.write_atomic(folder / f"{number}.yaml", yaml_text.dump(rung.config.model_dump(mode="json")))
    text = json.dumps({"schema": 1, "causes": causes, "rungs": said}, indent=1, ensure_ascii=False)
    store.write_atomic(folder / fixes.LIST, text + "\n")


@contextlib.contextmanager
def changed(run: Run, sets: Sequence[str]) -> Iterator[None]:
    """``change`` for as long as the run is handed over; where that is refused, all is as it was before."""
    if not sets:
        yield
        return
    config, notes = run.run_dir / "run.yaml", run.run_dir / fixes.NOTES
    was, noted = config.read_text(encoding="utf-8"), notes.read_text(encoding="utf-8") if notes.exists() else ""
    rungs, kept = run.run_dir / fixes.FOLDER, run.run_dir / f"{fixes.FOLDER}.before"
    change(run, sets)
    try:
        yield
    except ClusterctlError as e:
        if not e.maybe_queued:
            store.write_atomic(config, was)
            if noted:
                store.write_atomic(notes, noted)
            else:
                notes.unlink(missing_ok=True)  # a run that has some is no measurement
            if kept.exists():
                shutil.rmtree(rungs, ignore_errors=True)
                kept.rename(rungs)
        raise
    shutil.rmtree(kept, ignore_errors=True)


def change(run: Run, sets: Sequence[str]) -> None:
    """Change the ``run.yaml`` of a run that is to be resumed; the old one is kept beside it, and so are its rungs.

    Raises:
        UsageProblem: a key that the job script or the checkpoints depend on, or a wrong value.
        Unavailable: it cannot be written.
    """
    document = yaml_text.read(run.run_dir / "run.yaml")
    layers = Layers(dict(document.values))
    before = validate(schema_of(layers.values), layers.values, layers.where, what="run.yaml")
    looked_at = frozenset(text for _, text in leaves(document.values) if isinstance(text, str))
    # Of a section that is said as a whole the other keys stay, as in `submit`.
    said = {key: value for item in parse_sets(todays_names.of_sets(sets)[0]) for key, value in leaves(dict([item]))}
    for key, value in said.items():
        if key.startswith("profile.") or key in DECIDED_ELSEWHERE or key in _FIXED:
            raise UsageProblem(
                f"--set {key}: a resumed run keeps its job and what its checkpoints hold",
                hint="clusterctl submit makes a new run with it",
            )
        layers.put(key, value, f"--set {key}")
    if BATCH in said and not {ACCUMULATION, ROWS} & set(said) and (steps := _accumulation(before, said[BATCH])):
        layers.put(ACCUMULATION, steps, f"--set {BATCH}")
    config = validate(schema_of(layers.values), layers.values, layers.where, what="run.yaml")
    config = make_absolute(config, looked_at)
    attempts = store.read_attempts(run.run_dir)
    try:
        kept = fixes.keep(run.run_dir, attempts[-1].number if attempts else 0)
        fixes.note(run.run_dir, attempts[-1].number if attempts else 0, " ".join(sets), by="hand", kept=kept)
    except OSError as e:
        raise Unavailable(f"cannot write {run.run_dir}: {e.strerror}", hint="make room, or correct the rights") from e
    store.write_atomic(run.run_dir / "run.yaml", yaml_text.dump(config.model_dump(mode="json")))
    if run.record.auto_fix:
        rungs = run.run_dir / fixes.FOLDER
        kept_rungs = rungs.with_name(f"{fixes.FOLDER}.before")
        shutil.rmtree(kept_rungs, ignore_errors=True)
        if rungs.exists():
            rungs.rename(kept_rungs)
        write_rungs(run.run_dir, config, run.record.auto_fix, run.record.resources, None)


def _accumulation(before: RunConfig, batch: Any) -> int | None:
    """So many steps of accumulation that the rows of a step stay the same; None where they cannot."""
    optim, processes = before.optim, before.parallel.world_size
    rows = optim.per_device_train_batch_size * optim.gradient_accumulation_steps * processes
    one_go = batch * processes if isinstance(batch, int) else 0
    return rows // one_go if one_go > 0 and rows % one_go == 0 else None


def without_address(command: Sequence[str]) -> tuple[str, ...]:
    """A command line without what ``--notify`` names: others can read the record."""
    words = list(command)
    for at, word in enumerate(words):
        if word == "--notify" and at + 1 < len(words):
            words[at + 1] = "***"
        elif word.startswith("--notify="):
            words[at] = "--notify=***"
    return tuple(words)
