"""Old checkpoints and old runs: what may go, by rule, and its removal. Nothing is removed that is not shown before."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from clusterctl import yaml_text
from clusterctl.adapters import store
from clusterctl.errors import Unavailable, UsageProblem
from clusterctl.runs import status
from clusterctl.runs.find import Run
from clusterctl.status import Status
from trainers.runtime import checkpoints


@dataclass(frozen=True)
class Removal:
    """One thing that goes: a checkpoint, what is left of one, or a whole run. ``size`` in bytes."""

    run_id: str
    path: Path
    kind: Literal["checkpoint", "torn checkpoint", "run"]
    size: int


@dataclass(frozen=True)
class Kept:
    """A run that the rule would have touched, and why it was left as it is."""

    run_id: str
    why: str


@dataclass(frozen=True)
class Pruning:
    """What would go and what stays; nothing has happened yet."""

    removals: tuple[Removal, ...]
    kept: tuple[Kept, ...]

    @property
    def size(self) -> int:
        """Bytes of all that would go."""
        return sum(removal.size for removal in self.removals)


def plan(
    runs: Sequence[Run], folders: Sequence[Path], *, keep: int, older_than: float | None, whole_runs: bool
) -> Pruning:
    """Choose among the runs that have ended: their older checkpoints, or with ``whole_runs`` all of them.

    What another run names in its ``run.yaml`` stays, be it a final model, a checkpoint or data.

    Args:
        runs: the runs that are looked at.
        folders: of all runs of the output root, which may need something of these; their records may be unreadable.
        keep: the newest complete checkpoints that stay in each run; the best by the held-out metric stays too.
        older_than: seconds since the end; younger runs are not looked at.
        whole_runs: remove runs as a whole, their final models with them.

    Raises:
        UsageProblem: whole runs without an age.
    """
    if whole_runs and older_than is None:
        raise UsageProblem("whole runs are removed by age only", hint="add --older-than 90d, or name checkpoints")
    needed = _named(folders)
    removals: list[Removal] = []
    kept: list[Kept] = []
    for run, now in zip(runs, status.look(runs), strict=True):
        run_id = run.record.run_id
        if reason := _living(now):
            kept.append(Kept(run_id, reason))
        elif older_than is not None and time.time() - _ended(run, now) < older_than:
            continue
        else:
            going = [Removal(run_id, run.run_dir, "run", _size(run.run_dir))] if whole_runs else _checkpoints(run, keep)
            for removal in going:
                if other := _who_needs(removal, needed):
                    kept.append(Kept(run_id, f"{other} starts from {'it' if whole_runs else removal.path.name}"))
                else:
                    removals.append(removal)
    return Pruning(tuple(removals), tuple(kept))


def remove(pruning: Pruning) -> Iterator[Removal]:
    """Remove what was planned, one after the other, and yield each when it is gone.

    Raises:
        Unavailable: something cannot be removed.
    """
    for removal in pruning.removals:
        run_dir = removal.path if removal.kind == "run" else removal.path.parents[1]
        # Whoever resumes it now waits, or has been faster: then it is no longer ours to touch.
        try:
            with store.locked(run_dir):
                record = store.read_record(run_dir)
                if _living(status.look([Run(run_dir, record)])[0]):
                    continue
                _remove(removal)
            if removal.kind == "run":
                run_dir.rmdir()  # over NFS only now: the lock was a file in it
                if record.sweep and record.sweep == run_dir.name.rpartition("-")[0]:
                    _remove_empty_sweep(run_dir.parent / record.sweep)
        except OSError as e:
            words = f"{removal.path} cannot be removed: {e.strerror or e}"
            raise Unavailable(words, hint="mend that, and prune again: the rest is as it was") from e
        yield removal


def _remove(removal: Removal) -> None:
    if removal.kind == "run":
        # The record goes last: a removal that is cut short is still a run, to be removed again.
        for path in sorted(removal.path.iterdir(), key=lambda path: path.name == store.RECORD):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        return
    checkpoints.remove(removal.path)
    if removal.path.exists():  # it passes over what cannot be removed
        shutil.rmtree(removal.path)


def _remove_empty_sweep(folder: Path) -> None:
    """The folder that a sweep's runs have in common goes with the last of them, unless somebody put something there."""
    if any(path.name.startswith(f"{folder.name}-") for path in folder.parent.iterdir()) or not folder.is_dir():
        return
    if {path.name for path in folder.iterdir()} <= {"job.sh", "places"}:
        shutil.rmtree(folder)


def _living(now: Status) -> str:
    """Why a run must not be touched; empty when nothing of it waits or runs."""
    if now.state.active:
        return f"it is {now.state}"
    return "" if now.gone or now.state.final else f"it is not known what became of it: {now.why}"


def _ended(run: Run, now: Status) -> float:
    return now.ended_at or run.run_dir.stat().st_mtime


def _checkpoints(run: Run, keep: int) -> Iterator[Removal]:
    folder = run.run_dir / checkpoints.FOLDER
    trusted = checkpoints.complete(run.run_dir)
    best = _best(run.run_dir)
    stay = {path for step, path in trusted if step == best} | {path for _, path in trusted[len(trusted) - keep :]}
    names = {path for _, path in trusted}
    linked = [_real(one) for place in (run.run_dir, folder) for one in place.glob("*") if one.is_symlink()]
    for path in sorted(folder.glob("*")) if folder.is_dir() else ():
        if not path.is_dir() or path.is_symlink() or path in stay:
            continue
        if any(one.is_relative_to(_real(path)) for one in linked):  # somebody has marked it
            continue
        if path in names:
            yield Removal(run.record.run_id, path, "checkpoint", _size(path))
        elif path.name.startswith(("checkpoint-", "global_step_")):
            yield Removal(run.record.run_id, path, "torn checkpoint", _size(path))


def _best(run_dir: Path) -> int | None:
    """The step of the best checkpoint, where the run looked for one."""
    from trainers.config import Eval
    from trainers.runtime.best_step import best_so_far

    wanted = _config(run_dir).get("eval")
    try:
        section = Eval(**wanted) if isinstance(wanted, dict) else Eval()
    except ValueError:
        section = Eval()
    return best_so_far(run_dir, section).step


def _named(folders: Sequence[Path]) -> dict[Path, str]:
    """Everything that runs name with its whole path, each with one of those runs.

    Of a path with the name of a run in it that run is meant, also where the root has moved since.
    """
    by_name = {folder.name: folder for folder in folders}
    found = {}
    for folder in folders:
        for path in map(Path, _paths(_config(folder))):
            moved = [
                by_name[part].joinpath(*path.parts[at + 1 :]) for at, part in enumerate(path.parts) if part in by_name
            ]
            for one in (path, *moved):
                if not (whole := _real(one)).is_relative_to(_real(folder)):
                    found[whole] = folder.name
    return found


def _real(path: Path) -> Path:
    """Where it is, links followed; a circle of links is no error."""
    return Path(os.path.realpath(path))


def _paths(value: object) -> Iterator[str]:
    """The texts in a configuration that can be whole paths."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from _paths(inner)
    elif isinstance(value, str) and value.startswith("/") and "\0" not in value:
        yield value


def _who_needs(removal: Removal, needed: Mapping[Path, str]) -> str | None:
    """A run that names something of what would go."""
    going = _real(removal.path)
    return next((run_id for path, run_id in needed.items() if path.is_relative_to(going)), None)


def _config(run_dir: Path) -> dict[str, Any]:
    try:
        return dict(yaml_text.read(run_dir / "run.yaml").values)
    except UsageProblem:
        return {}


def _size(path: Path) -> int:
    """Bytes of all files below, links not followed."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size  # noqa: PTH118 - a Path for each file is slow
            except OSError:
                continue
    return total
