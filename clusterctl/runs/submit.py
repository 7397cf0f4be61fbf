"""Handing drafts over to their scheduler: the record is written before and completed after."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import secrets
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from clusterctl import yaml_text
from clusterctl.adapters import process, store
from clusterctl.errors import ClusterctlError, Interrupted, Rejected, Unavailable, UsageProblem
from clusterctl.model import JobState, Submission
from clusterctl.record import JobEntry, Record
from clusterctl.runs import aftercare, choose, find, schedulers, status
from clusterctl.runs.draft import Draft
from clusterctl.runs.find import Run
from clusterctl.runs.request import Request
from clusterctl.settings import Settings


def submit(
    drafts: Sequence[Draft],
    request: Request,
    settings: Settings,
    after: Sequence[Run] = (),
    predictions: Sequence[dict[str, Any] | None] = (),
) -> list[Run]:
    """Write the run directories and hand the runs over, in order, each waiting for the one before it.

    ``predictions`` are kept beside the runs, for their cards.

    Raises:
        Rejected: the scheduler refused; the refused run left nothing behind.
        Unavailable: no answer; where it is not known whether the job was queued, the record stays.
        Interrupted: Ctrl-C; what was submitted before it took effect is named.
    """
    done: list[Run] = []
    waits_for = list(after)
    for one, prediction in zip_longest(drafts, predictions):
        with ctrl_c_waits() as pressed:
            run = prepare(one, request, settings.output_root, [w.record.run_id for w in waits_for], prediction)
            try:
                done.append(hand_over(run, waits_for))
            except ClusterctlError as e:
                if not e.maybe_queued:
                    store.remove_run_dir(run.run_dir)
                    take_back(done)
                raise
        if pressed:
            ids = " ".join(run.record.run_id for run in done)
            raise Interrupted(f"interrupted, but submitted already: {ids}", hint=f"clusterctl cancel {ids}")
        waits_for = [done[-1]]
    return done


@contextlib.contextmanager
def ctrl_c_waits() -> Iterator[list[int]]:
    """Between the first file and the confirmed job id there is no good moment to stop: Ctrl-C is noted."""
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


def take_back(runs: Sequence[Run]) -> None:
    """The rest of a pipeline, or of a sweep, was refused: its beginning would train for nothing.

    Raises:
        Unavailable: they could not be cancelled; their directories must stay.
    """
    refs = [ref for run in runs if (ref := status.job_ref(run))]
    if not refs:
        return
    try:
        schedulers.get(runs[0].record.scheduler).cancel(refs)
    except ClusterctlError as e:
        ids = " ".join(run.record.run_id for run in runs)
        words = f"the rest was refused, and what was submitted before could not be cancelled: {e.message}"
        raise Unavailable(words, hint=f"clusterctl cancel {ids}", maybe_queued=True) from e
    for run in runs:
        with contextlib.suppress(Unavailable):  # a full disk, as like as not the reason for the refusal
            note_cancelled(run.run_dir)


def note_cancelled(run_dir: Path) -> None:
    """Leave the evidence of a cancellation, for the time when the scheduler has forgotten the job."""
    text = json.dumps({"schema": 1, "time": time.time(), "user": process.own_user()})
    store.write_atomic(run_dir / status.CANCELLED, text + "\n")


def prepare(
    one: Draft, request: Request, root: Path, after: Sequence[str] = (), prediction: dict[str, Any] | None = None
) -> Run:
    """Make the run directory with ``run.yaml``, ``job.sh`` and the record, before anything is submitted."""
    try:
        run_dir = store.make_run_dir(root, one.run_id)
    except FileExistsError as e:
        raise Unavailable(f"the run id {one.run_id} was taken just now", hint="type it again") from e
    config = one.composed.config
    record = Record(
        run_id=one.run_id,
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
        command=aftercare.without_address(request.command),
        world_size=one.plan.world_size,
        max_steps=one.composed.full_steps,
        num_train_epochs=config.optim.num_train_epochs,
        full_time_limit=one.composed.full_time,
        auto_fix=request.auto_fix,
        after=tuple(after),
        sweep=one.sweep,
        swept=one.swept,
        parallel=one.parallel,
    )
    try:
        store.write_atomic(run_dir / "run.yaml", yaml_text.dump(config.model_dump(mode="json")))
        store.write_atomic(run_dir / "job.sh", one.script, mode=0o755)
        if one.choice:
            said = {"schema": 1, **dataclasses.asdict(one.choice)}
            store.write_atomic(run_dir / choose.FILE_NAME, json.dumps(said, indent=1) + "\n")
        if prediction:
            store.write_atomic(run_dir / "prediction.json", json.dumps(prediction) + "\n")
        aftercare.write(run_dir, one, request)
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
    waits_for = dependencies(run, after)
    entry = JobEntry(token=secrets.token_hex(8), requested_at=time.time())
    asked = dataclasses.replace(run.record, jobs=(*run.record.jobs, entry))
    store.write_record(run.run_dir, asked)
    submission = Submission(
        run_id=asked.run_id,
        run_dir=run.run_dir,
        name=asked.name,
        token=entry.token,
        resources=asked.resources,
        after=waits_for,
        sweep=asked.sweep,
        parallel=asked.parallel,
    )
    try:
        job_id = adapter.submit(submission)
    except ClusterctlError as e:
        if not e.maybe_queued:
            store.write_record(run.run_dir, run.record)
        raise
    try:
        return find.confirm(Run(run.run_dir, asked), job_id)
    except Unavailable as e:  # a full disk; the run directory must not be removed under its job
        hint = f"{e.hint}; then `clusterctl status {asked.run_id}` completes the record"
        raise Unavailable(f"job {job_id} is queued, but {e.message}", hint=hint, maybe_queued=True) from e


def dependencies(run: Run, after: Sequence[Run]) -> tuple[str, ...]:
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
