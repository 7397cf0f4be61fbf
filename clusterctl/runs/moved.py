"""A look at a run before it is submitted again: is it ours, and are the files still there that it names by their paths?

They are not where its root, or the user's home, has another name now.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from clusterctl import yaml_text
from clusterctl.adapters import process, store
from clusterctl.errors import Rejected, UsageProblem
from clusterctl.paths import is_file
from clusterctl.runs.find import Run

_NAMED = (
    ("model", ("model_name_or_path", "adapter_name_or_path", "chat_template")),
    ("data", ("train_files", "eval_files")),
    ("method", ("reward_functions", "reward_model")),
)
"""What of ``run.yaml`` a trainer opens. Of FILE.py:FUNCTION the file."""


def check(run: Run) -> None:
    """Look before a run is submitted again whether it is ours, and what it names is still there.

    What a run of the same root has yet to make is not missed.

    Raises:
        Rejected: it is another user's.
        UsageProblem: every path that is gone, and where it may be now.
    """
    refuse_foreign(run.run_dir)
    gone = []
    for key, path in _named(dict(yaml_text.read(run.run_dir / "run.yaml").values)):
        if not path.exists() and not is_file(path.parent / store.RECORD):
            here = _here(path, run.run_dir.parent)
            gone.append((f"{key}: {path}" + (f" (now {here})" if here else ""), path, here))
    if gone:
        old, new = next(((path, here) for _, path, here in gone if here), (None, None))
        hint = f"correct the paths in {run.run_dir / 'run.yaml'}"
        if old and new:
            hint += ", or let the old name lead to the new one: " + _link(old, new)
        said = "\n  ".join(words for words, _, _ in gone)
        raise UsageProblem(f"run.yaml of {run.record.run_id} names what is not there:\n  {said}", hint=hint)


def refuse_foreign(folder: Path) -> None:
    """In a shared root anybody may have put a run there, or a sweep, whose script would now run as us.

    Raises:
        Rejected: it is another user's.
    """
    for path in (folder, folder / "job.sh", folder / "run.yaml", folder / "notify.json"):
        with contextlib.suppress(OSError):
            owner = path.stat().st_uid
            if owner != os.geteuid():
                raise Rejected(
                    f"{path} belongs to {process.user_name(owner)}: resuming would run it as you",
                    hint="submit the recipe yourself, or ask its owner to resume the run",
                )


def _named(config: Mapping[str, Any]) -> Iterator[tuple[str, Path]]:
    for section, keys in _NAMED:
        values = config.get(section)
        if not isinstance(values, dict):
            continue
        for key in keys:
            value = values.get(key)
            for text in value if isinstance(value, list) else [value]:
                if isinstance(text, str) and text.startswith("/"):
                    file = text.rpartition(":")[0] if key == "reward_functions" else text
                    yield f"{section}.{key}", Path(file)


def _here(path: Path, root: Path) -> Path | None:
    """The same file below a folder that holds the root: the longest common end of a path that exists."""
    parts = path.parts[1:]
    for cut in range(1, len(parts)):
        for folder in (root, *root.parents):
            found = folder.joinpath(*parts[cut:])
            if found.exists() and found != path:
                return found
    return None


def _link(old: Path, new: Path) -> str:
    """The command that makes the common end of both paths true again."""
    while old.name == new.name:
        old, new = old.parent, new.parent
    return f"ln -s {shlex.quote(str(new))} {shlex.quote(str(old))}"
