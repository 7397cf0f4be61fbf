"""Which checkpoints can be trusted. Standard library only: the guard and login nodes use it too.

``checkpoints/checkpoint-N`` counts only when it holds the file COMPLETE, which is written last, after
everything else is on disk, and when its files have the sizes that stand in there. Otherwise the directory is what a
killed or full-disk save, or a damaged disk, left behind.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from pathlib import Path

from trainers.runtime.files import read_json, write_json

FOLDER = "checkpoints"
MARK = "COMPLETE"


def complete(run_dir: Path) -> list[tuple[int, Path]]:
    """(step, directory) of every complete checkpoint of a run, oldest first."""
    found = []
    for path in (run_dir / FOLDER).glob("*"):
        # The second is how verl calls them.
        name = re.fullmatch(r"(?:checkpoint-|global_step_)(\d+)", path.name)
        if name and _is_whole(path):
            found.append((int(name[1]), path))
    return sorted(found)


def torn(run_dir: Path) -> list[str]:
    """Names of the checkpoints that cannot be trusted."""
    whole = {path.name for _, path in complete(run_dir)}
    return sorted(p.name for p in (run_dir / FOLDER).glob("checkpoint-*") if p.name not in whole)


def _is_whole(checkpoint: Path) -> bool:
    mark = checkpoint / MARK
    if not mark.is_file():
        return False
    sizes = read_json(mark).get("sizes")  # older versions wrote none
    try:
        return not isinstance(sizes, dict) or all((checkpoint / n).stat().st_size == s for n, s in sizes.items())
    except OSError:
        return False


def newest_step(run_dir: Path) -> int | None:
    """Step of the newest complete checkpoint; None when there is none."""
    found = complete(run_dir)
    return found[-1][0] if found else None


def mark_complete(checkpoint: Path, step: int) -> None:
    """Say that a checkpoint can be trusted, once the disk has all of it."""
    sizes = {}
    for folder, _, names in os.walk(checkpoint):
        for path in (Path(folder) / name for name in names if name != MARK):
            _sync(path)
            sizes[str(path.relative_to(checkpoint))] = path.stat().st_size
        _sync(Path(folder))
    write_json(checkpoint / MARK, {"step": step, "time": time.time(), "sizes": sizes})
    _sync(checkpoint)
    _sync(checkpoint.parent)


def remove(checkpoint: Path) -> None:
    """Delete a checkpoint, its mark first: a deletion that is cut short leaves nothing that looks complete."""
    with contextlib.suppress(FileNotFoundError):
        (checkpoint / MARK).unlink()
    shutil.rmtree(checkpoint, ignore_errors=True)


def rotate(run_dir: Path, keep: int | None, best: int | None = None) -> None:
    """Delete all but the newest ``keep`` complete checkpoints (None: keep all) and that of step ``best``, and
    every incomplete one."""
    trusted = complete(run_dir)
    for path in (run_dir / FOLDER).glob("checkpoint-*"):
        if path not in [complete_one for _, complete_one in trusted]:
            remove(path)
    for step, path in trusted[:-keep] if keep else []:
        if step != best:
            remove(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
