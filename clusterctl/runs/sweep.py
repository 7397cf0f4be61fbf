"""Runs of a sweep, handed over as one job array, or to the local runner one by one; and resumed."""

from __future__ import annotations

import dataclasses
import itertools
import secrets
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from clusterctl import assets, render
from clusterctl.adapters import store
from clusterctl.errors import ClusterctlError, Interrupted, NotFound, Rejected, Unavailable
from clusterctl.model import JobState, Submission
from clusterctl.paths import is_file
from clusterctl.record import JobEntry
from clusterctl.runs import find, moved, schedulers, status, submit
from clusterctl.runs.draft import Draft
from clusterctl.runs.find import Run
from clusterctl.runs.request import Request
from clusterctl.settings import Settings


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
