"""Changes that a job makes to its own run after it ran out of memory, prepared by ``clusterctl submit --auto-fix oom``.

``rungs/N.yaml`` is a whole run.yaml, each a change beyond the one before it, and ``rungs/rungs.json`` says in words
what each changes. To take a rung is to move its file over ``run.yaml``: nothing is computed in the job, so this needs
the standard library only, and a job that is killed in between leaves the one or the other.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trainers.runtime import checkpoints
from trainers.runtime.files import append_line, read_json

FOLDER = "rungs"
LIST = "rungs.json"
NOTES = "fixes.jsonl"


@dataclass(frozen=True)
class Rung:
    """A change. ``resumes``: a checkpoint of before can go on with it, and the steps keep their rows."""

    number: int
    words: str
    resumes: bool


def take(run_dir: Path, cause: str, attempt: int) -> Rung | str:
    """Change the run by its next rung, when it has rungs for this cause. Returns the rung, or why there is none.

    The ``run.yaml`` of the attempt is kept as ``run-ATTEMPT.yaml``. Empty words: nobody allowed a change.
    """
    said = read_json(run_dir / FOLDER / LIST)
    causes = said.get("causes")
    if not isinstance(causes, list) or cause not in causes:
        return ""
    left = list(_left(run_dir, said))
    if not left:
        return "and no change is left to try"
    saved = checkpoints.newest_step(run_dir)
    rung = next((one for one in left if one.resumes or saved is None), None)
    if rung is None:
        return f"and no change is left that checkpoint-{saved} can go on with"
    try:
        kept = keep(run_dir, attempt)
        note(run_dir, attempt, rung.words, cause=cause, rung=rung.number, kept=kept)
        (run_dir / FOLDER / f"{rung.number}.yaml").replace(run_dir / "run.yaml")
    except OSError as e:
        return f"and the change could not be made: {e.strerror or e}"
    return rung


def keep(run_dir: Path, attempt: int) -> str:
    """Keep the ``run.yaml`` under which this attempt ran. Returns the name of the copy. Raises OSError."""
    name = f"run-{attempt}.yaml"
    if not (run_dir / name).exists():
        shutil.copyfile(run_dir / "run.yaml", run_dir / name)
    return name


def note(run_dir: Path, attempt: int, words: str, **more: object) -> None:
    """Write down that the run is changed after this attempt. Raises OSError."""
    line = {"schema": 1, "time": time.time(), "attempt": attempt, "change": words, **more}
    append_line(run_dir / NOTES, {**line, "checkpoint": checkpoints.newest_step(run_dir)})


def _left(run_dir: Path, said: dict[str, object]) -> Iterator[Rung]:
    """The rungs that were not taken yet, in their order."""
    rungs = said.get("rungs")
    for number, one in enumerate(rungs if isinstance(rungs, list) else (), start=1):
        if isinstance(one, dict) and (run_dir / FOLDER / f"{number}.yaml").is_file():
            yield Rung(number, str(one.get("words")), one.get("resumes") is True)
