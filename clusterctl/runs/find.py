"""From what a person types to a run: an id, a unique beginning of one, a job id, or ``last``."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clusterctl.adapters import store
from clusterctl.errors import NotFound, UsageProblem
from clusterctl.model import Record
from clusterctl.paths import is_file


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
    runs, _ = every(root)
    if not runs:
        raise NotFound(f"there are no runs in {root}", hint="clusterctl submit RECIPE makes one")
    if text == "last":
        return runs[-1]
    by_job = [run for run in runs if any(job.job_id == text for job in run.record.jobs)]
    if by_job:
        return by_job[-1]
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
    """``one`` for each text, without repetition."""
    found = {run.run_dir: run for run in (one(root, text) for text in texts)}
    return list(found.values())


def confirm(run: Run, job_id: str) -> Run:
    """Write the job id of the newest hand-over into the record."""
    *before, newest = run.record.jobs
    record = dataclasses.replace(run.record, jobs=(*before, dataclasses.replace(newest, job_id=job_id)))
    store.write_record(run.run_dir, record)
    return Run(run.run_dir, record)
