"""Sweeps: one run for each combination of values, handed over as one job array, or to the local runner one by one."""

from __future__ import annotations

import dataclasses
import itertools
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from clusterctl import assets, render, todays_names
from clusterctl.adapters import store
from clusterctl.errors import ClusterctlError, Interrupted, NotFound, Rejected, Unavailable, UsageProblem
from clusterctl.layers import SET_HINT
from clusterctl.model import JobState, Submission
from clusterctl.paths import is_file
from clusterctl.recipe import read_recipe
from clusterctl.record import JobEntry
from clusterctl.runs import draft, find, moved, schedulers, status, submit
from clusterctl.runs.draft import Draft
from clusterctl.runs.find import Run
from clusterctl.runs.request import Request
from clusterctl.settings import Settings

MOST = 256
"""Runs of one sweep. Slurm's own limit of an array is 1000 by default (MaxArraySize); a table of more tells nobody
anything, and without Slurm each of them is a process that waits."""

HINT = "write --sweep optim.learning_rate=1e-4,5e-5"


def axes(texts: Sequence[str]) -> dict[str, list[str]]:
    """Keys and their values, as ``--sweep key=value,value`` gives them.

    Raises:
        UsageProblem: no ``key=value,...``, a key twice, the profile's keys, more than ``MOST`` runs.
    """
    found: dict[str, list[str]] = {}
    for text in texts:
        key, equals, rest = text.partition("=")
        key, values = key.strip(), [value.strip() for value in _split(rest)]
        if not equals or not key or not all(values):
            raise UsageProblem(f"--sweep {text!r} is not key=value,value", hint=HINT)
        key, values = _todays(key, values)
        if key in found:
            raise UsageProblem(f"--sweep {key} is said twice", hint=f"write all its values at once: {HINT[6:]}")
        if key.startswith("profile."):
            raise UsageProblem(
                f"--sweep {key}: the runs of a sweep differ in what is trained, not in what they run on",
                hint="submit one sweep for each profile",
            )
        found[key] = values
    count = 1
    for values in found.values():
        count *= len(values)
    if count < 2:
        raise UsageProblem("a sweep of one run is none", hint=f"use --set, or {HINT}")
    if count > MOST:
        sizes = " x ".join(str(len(values)) for values in found.values())
        raise UsageProblem(
            f"this sweep would have {count} runs ({sizes}); at most {MOST}",
            hint="sweep coarsely first, then finely around the best",
        )
    return found


def _todays(key: str, values: Sequence[str]) -> tuple[str, list[str]]:
    """Key and values under today's names."""
    said = [todays_names.of_sets([f"{key}={value}"])[0] for value in values]
    keys = {item.partition("=")[0] for one in said for item in one}
    if len(keys) != 1 or any(len(one) != 1 for one in said):
        raise UsageProblem(
            f"--sweep {key}: it is an old name, and its values are no values of one key today",
            hint="docs/migration.md says what it is today: sweep that",
        )
    return keys.pop(), [one[0].partition("=")[2] for one in said]


def _split(text: str) -> list[str]:
    """At the commas that stand in no bracket and in no quotes, which as in YAML are none in the middle of a word."""
    parts, depth, quote = [""], 0, ""
    for character in text:
        begins = depth or not parts[-1].strip()
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"" and begins:
            quote = character
        elif character in "[{" and begins:
            depth += 1
        elif character in "]}" and depth:
            depth -= 1
        if character == "," and not quote and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    if quote or depth:
        raise UsageProblem(f"--sweep: a quote or bracket in {text!r} is left open", hint="close it")
    return parts


def drafts(request: Request, texts: Sequence[str], parallel: int | None, settings: Settings) -> list[Draft]:
    """A draft for each combination of values, the last key varying fastest. Every one has been validated.

    Where nobody names a profile, all run on the one that is chosen for the first.

    Raises:
        UsageProblem: what is wrong with the sweep or with any of its runs, or they would need different resources.
        NoFit, Unavailable: as ``draft.draft``.
    """
    if parallel is not None and parallel < 1:
        raise UsageProblem(f"--parallel {parallel}: at least one run at a time", hint="leave it out for no limit")
    keys = axes(texts)
    said = {item.partition("=")[0].strip() for item in todays_names.of_sets(request.sets)[0]}
    if both := sorted(said & keys.keys()):
        raise UsageProblem(f"{both[0]} is in --set and in --sweep", hint="say it once")
    recipe = read_recipe(request.recipe)
    if recipe.pipeline:
        names = ", ".join(member.recipe for member in recipe.pipeline)
        raise UsageProblem(f"{recipe.name} is a pipeline; a sweep is of one stage", hint=f"its stages are {names}")
    name = request.name or str(recipe.said.values.get("name") or recipe.name)
    sweep = draft.new_id(name, settings.output_root)
    found: list[Draft] = []
    problems: dict[str, None] = {}
    for number, values in enumerate(itertools.product(*keys.values())):
        swept = tuple(f"{key}={value}" for key, value in zip(keys, values, strict=True))
        asked = dataclasses.replace(
            request,
            name=f"{name}-{number}",
            sets=(*request.sets, *swept),
            profile=request.profile or (found[0].composed.profile_name if found else None),
        )
        try:
            [one] = draft.draft(asked, settings)
        except UsageProblem as e:
            problems[_of_sweep(e.message, keys)] = None
            hint = e.hint
            continue
        found.append(dataclasses.replace(one, run_id=f"{sweep}-{number}", sweep=sweep, swept=swept, parallel=parallel))
    if problems:
        hint = HINT if hint == SET_HINT else hint.replace("--set", "--sweep")
        raise UsageProblem("\n  ".join(problems), hint=hint)
    _refuse_the_same(found)
    return _alike(found)


def _refuse_the_same(found: Sequence[Draft]) -> None:
    """1e-4 and 0.0001, or a key that ``--set`` overrules: the same run would be paid for twice."""
    seen: dict[str, Draft] = {}
    for one in found:
        other = seen.setdefault(one.composed.config.model_copy(update={"name": ""}).model_dump_json(), one)
        if other is not one:
            raise UsageProblem(
                f"--sweep: {', '.join(other.swept)} and {', '.join(one.swept)} are the same run twice",
                hint="each value is a run of its own: leave one out",
            )


def _of_sweep(message: str, keys: Mapping[str, object]) -> str:
    for key in keys:
        message = message.replace(f"--set {key}", f"--sweep {key}")
    return message


def _alike(found: list[Draft]) -> list[Draft]:
    """With resources that are the same for all, as tasks of an array have them: the memory of the greediest."""
    wanted = [one.plan.resources for one in found]
    most = max((one.mem or "" for one in wanted), key=_mebibytes)
    card = max(one.gpu_memory or 0 for one in wanted)
    plans = [
        dataclasses.replace(
            one.plan,
            resources=dataclasses.replace(one.plan.resources, mem=most or None, gpu_memory=card or None),
        )
        for one in found
    ]
    first = plans[0]
    for one, plan in zip(found, plans, strict=True):
        if dataclasses.replace(plan, name=first.name) != first:
            raise UsageProblem(
                f"{', '.join(one.swept)} needs other resources than {', '.join(found[0].swept)}",
                hint="name a profile that suits all of them, or submit two sweeps",
            )
    return [dataclasses.replace(one, plan=plan) for one, plan in zip(found, plans, strict=True)]


def _mebibytes(mem: str) -> float:
    """Slurm's way to write memory: a plain number is of MiB."""
    factors = {"K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0**2}
    number, unit = (mem[:-1], mem[-1].upper()) if mem[-1:].isalpha() else (mem, "M")
    return float(number or 0) * factors.get(unit, 1.0)


def script(found: Sequence[Draft]) -> str:
    """The script of the job array, byte for byte.

    Raises:
        UsageProblem: the template is broken.
    """
    first = found[0]
    plan = dataclasses.replace(first.plan, name=first.plan.name.removesuffix("-0"))
    from clusterctl.adapters.slurm_text import array

    template = assets.find("job_templates", "sweep.sh").path
    return render.render(plan, template, sweep=first.sweep, tasks=array(range(len(found)), first.parallel))


def submit_all(
    found: Sequence[Draft],
    request: Request,
    settings: Settings,
    after: Sequence[Run] = (),
    predictions: Sequence[dict[str, Any] | None] = (),
) -> list[Run]:
    """Write all run directories, then hand them over: to Slurm as one array, to this machine one by one.

    Raises:
        Rejected, NoFit: refused; nothing is left behind.
        Unavailable: no answer; where it is not known whether the array was queued, the records stay.
        Interrupted: Ctrl-C; the sweep has been submitted.
    """
    root, sweep = settings.output_root, found[0].sweep
    parents = [run.record.run_id for run in after]
    with submit.ctrl_c_waits() as pressed:
        runs: list[Run] = []
        try:
            sweep_dir = store.make_folder(root, sweep)
            if found[0].plan.scheduler == "slurm":
                store.write_atomic(sweep_dir / "job.sh", script(found), mode=0o755)
            for one, prediction in itertools.zip_longest(found, predictions):
                runs.append(submit.prepare(one, request, root, parents, prediction))
            done = hand_over(runs, after, pressed)
        except FileExistsError as e:
            raise Unavailable(f"the id {sweep} was taken just now", hint="type it again") from e
        except ClusterctlError as e:
            if not e.maybe_queued:
                for run in runs:
                    store.remove_run_dir(run.run_dir)
                store.remove_run_dir(root / sweep)
            raise
    if pressed:
        raise Interrupted(f"interrupted, but submitted already: {sweep}", hint=f"clusterctl cancel {sweep}")
    return done


def hand_over(runs: Sequence[Run], after: Sequence[Run] = (), pressed: Sequence[int] = ()) -> list[Run]:
    """Give runs of one sweep to their scheduler. The records know of it before and after.

    ``pressed`` is what ``submit.ctrl_c_waits`` notes: one by one takes a while, and nobody waits for the rest.

    Raises:
        Interrupted: Ctrl-C; those that had begun were cancelled.
        Rejected, Unavailable, NoFit: as the scheduler says. None of them was handed over then, or it is not known of
            all of them.
    """
    if runs[0].record.scheduler == "slurm":
        return _as_array(runs, after)
    done: list[Run] = []
    try:
        for run in runs:
            if pressed:
                raise Interrupted("interrupted: nothing of the sweep is left")
            done.append(submit.hand_over(run, after))
    except ClusterctlError as e:
        if not e.maybe_queued:
            submit.take_back(done)
        raise
    return done


def _as_array(runs: Sequence[Run], after: Sequence[Run]) -> list[Run]:
    first = runs[0].record
    waits_for = submit.dependencies(runs[0], after)
    token, now = secrets.token_hex(8), time.time()
    asked = []
    for run in runs:
        entry = JobEntry(f"{token}.{task(run)}", now)
        asked.append(Run(run.run_dir, dataclasses.replace(run.record, jobs=(*run.record.jobs, entry))))
    submission = Submission(
        run_id=first.sweep,
        run_dir=runs[0].run_dir.parent / first.sweep,
        name=first.sweep,
        token=token,
        resources=first.resources,
        after=waits_for,
        sweep=first.sweep,
        parallel=first.parallel,
        tasks=tuple(task(run) for run in runs),
    )
    try:
        for run in asked:
            store.write_record(run.run_dir, run.record)
        array = schedulers.get("slurm").submit(submission)
    except ClusterctlError as e:
        if not e.maybe_queued:
            for run in runs:
                store.write_record(run.run_dir, run.record)
        raise
    try:
        return [find.confirm(run, f"{array}_{task(run)}") for run in asked]
    except Unavailable as e:  # a full disk; the run directories must not be removed under their jobs
        hint = f"{e.hint}; then `clusterctl status {first.sweep}` completes the records"
        raise Unavailable(f"job array {array} is queued, but {e.message}", hint=hint, maybe_queued=True) from e


def task(run: Run) -> int:
    """The number of a run in its sweep."""
    return int(run.record.run_id.rpartition("-")[2])


def resume(runs: Sequence[Run]) -> list[Run]:
    """Submit those runs of a sweep again that have ended without finishing; the others are left as they are.

    Raises:
        Rejected: there are none.
        Unavailable: it is not known of all of them whether they run.
        NotFound: a run that they come after is gone, or the script of the array.
        UsageProblem: files that one of them names are gone.
    """
    with ExitStack() as locks:
        for run in runs:
            locks.enter_context(store.locked(run.run_dir))
        runs = [Run(run.run_dir, store.read_record(run.run_dir)) for run in runs]
        looks = status.look(runs, max_age=0)
        sweep = runs[0].record.sweep
        for now in looks:
            if not (now.gone or now.state.active):
                raise Unavailable(f"{now.record.run_id}: {now.why}", hint="try again when the scheduler answers")
        again = [Run(now.run_dir, now.record) for now in looks if now.gone and now.state is not JobState.COMPLETED]
        if not again:
            raise Rejected(f"no run of {sweep} has failed or was cancelled", hint=f"clusterctl status {sweep}")
        if again[0].record.scheduler == "slurm":
            _check_array(again)
        for run in again:
            moved.check(run)
        done = hand_over(again, _parents(again[0]))
        for run in again:
            (run.run_dir / status.CANCELLED).unlink(missing_ok=True)
        return done


def _check_array(again: Sequence[Run]) -> None:
    """Raises Rejected, NotFound: the folder with the script of the array is another user's, or gone."""
    folder = again[0].run_dir.parent / again[0].record.sweep
    moved.refuse_foreign(folder)
    if not is_file(folder / "job.sh"):
        ids = ", ".join(run.record.run_id for run in again)
        raise NotFound(f"{folder / 'job.sh'} is gone, the script of the array", hint=f"resume them one by one: {ids}")


def _parents(run: Run) -> list[Run]:
    root: Path = run.run_dir.parent
    return [find.one(root, parent) for parent in run.record.after]
