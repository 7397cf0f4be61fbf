"""From what a person types to a run: an id, a unique beginning of one, a job id, or ``last``."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clusterctl.adapters import store
from clusterctl.errors import NotFound, UsageProblem
from clusterctl.paths import is_dir, is_file
from clusterctl.record import Record


@dataclass(frozen=True)
class Run:
    """A run directory and its record."""

    run_dir: Path
    record: Record


def every(root: Path) -> tuple[list[Run], list[str]]:
    """All runs, oldest first, and a line for each directory whose record cannot be read."""
    runs: list[Run] = []
    problems: list[str] = []
    for run_dir in store.run_dirs(root):
        try:
            runs.append(Run(run_dir, store.read_record(run_dir)))
        except NotFound as e:
            problems.append(e.message)
    return sorted(runs, key=lambda run: (run.record.created_at, run.record.run_id)), problems


def one(root: Path, text: str) -> Run:
    """The run that ``text`` means.

    Raises:
        NotFound: no run matches.
        UsageProblem: several do.
    """
    if text and text not in ("last", ".", "..") and is_file(root / text / store.RECORD):
        return Run(root / text, store.read_record(root / text))
    if is_file(Path(text) / store.RECORD):
        return Run(Path(text).absolute(), store.read_record(Path(text)))
    if text not in ("", "last", ".", "..") and is_dir(root / text) and not sweep(root, text):
        store.read_record(root / text)  # which says why it has none
    runs, _ = every(root)
    if not runs:
        raise NotFound(f"there are no runs in {root}", hint="clusterctl submit RECIPE makes one")
    if text == "last":
        return runs[-1]
    by_job = [run for run in runs if any(job.job_id == text for job in run.record.jobs)]
    if by_job:
        return by_job[-1]
    if members := _of_sweep(runs, text):
        ids = f"{members[0].record.run_id} to {members[-1].record.run_id}"
        raise UsageProblem(f"{text} is a sweep of {len(members)} runs", hint=f"name one of them: {ids}")
    matching = [run for run in runs if text and run.record.run_id.startswith(text)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        shown = ", ".join(run.record.run_id for run in matching[-5:])
        raise UsageProblem(f"{text!r} begins {len(matching)} runs: {shown}", hint="type more of the id")
    near = difflib.get_close_matches(text, [run.record.run_id for run in runs], n=3, cutoff=0.4)
    raise NotFound(
        f"there is no run {text!r} in {root}",
        hint=f"did you mean {' or '.join(near)}?" if near else "clusterctl status --all lists the runs",
    )


def several(root: Path, texts: Sequence[str]) -> list[Run]:
    """``one`` for each text, or all runs of the sweep that it means, without repetition."""
    found = {run.run_dir: run for text in texts for run in sweep(root, text) or [one(root, text)]}
    return list(found.values())


def sweep(root: Path, text: str) -> list[Run]:
    """The runs of the sweep that ``text`` means, in its order: its id, a unique beginning, the job id of its array.

    ``last`` is the sweep where that was submitted last. Empty where ``text`` means no sweep.
    """
    if is_file(root / text / store.RECORD) or is_file(Path(text) / store.RECORD):
        return []
    return _of_sweep(every(root)[0], text)


def _of_sweep(runs: Sequence[Run], text: str) -> list[Run]:
    if text == "last" and runs:
        text = runs[-1].record.sweep
    ids = {run.record.sweep for run in runs if run.record.sweep and text and _means(run, text)}
    others = [run for run in runs if not run.record.sweep and run.record.run_id.startswith(text)]
    if len(ids) != 1 or (others and text not in ids):
        return []
    members = [run for run in runs if run.record.sweep in ids]
    return sorted(members, key=lambda run: (len(run.record.run_id), run.record.run_id))


def _means(run: Run, text: str) -> bool:
    arrays = (job.job_id.partition("_")[0] for job in run.record.jobs if job.job_id and "_" in job.job_id)
    return run.record.sweep.startswith(text) or text in arrays


def confirm(run: Run, job_id: str) -> Run:
    """Write the job id of the newest hand-over into the record."""
    record, token = run.record, run.record.jobs[-1].token
    with contextlib.suppress(NotFound):
        record = store.read_record(run.run_dir)  # another terminal may have handed it over again meanwhile
    jobs = tuple(dataclasses.replace(job, job_id=job_id) if job.token == token else job for job in record.jobs)
    record = dataclasses.replace(record, jobs=jobs)
    store.write_record(run.run_dir, record)
    return Run(run.run_dir, record)
