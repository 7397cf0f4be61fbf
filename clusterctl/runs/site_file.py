"""Making a site file: look around, say what would be written, write it."""

from __future__ import annotations

import difflib
import os
import shutil
import socket
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clusterctl import settings, site_text, yaml_text
from clusterctl.adapters import surroundings as around
from clusterctl.adapters.store import write_atomic
from clusterctl.errors import Unavailable, UsageProblem
from clusterctl.paths import is_file, text_of, user_path
from clusterctl.schema import Secrets, Site
from clusterctl.surroundings import SlurmSite, Surroundings
from clusterctl.validation import validate

if TYPE_CHECKING:
    from clusterctl.hardware import Machine


_NOT_SHARED = ("/tmp/", "/var/tmp/", "/dev/shm/")  # noqa: S108 - nothing is written there


@dataclass(frozen=True)
class Draft:
    """A site file that could be written. ``before`` is what stands there; None: nothing. ``chosen`` is what it says."""

    path: Path
    text: str
    before: str | None
    seen: Surroundings
    chosen: tuple[site_text.Setting, ...]
    kept: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        """Writing it would make a difference."""
        return self.text != self.before

    @property
    def diff(self) -> str:
        """What would change, as a unified diff."""
        old, new = (self.before or "").splitlines(keepends=True), self.text.splitlines(keepends=True)
        lines = difflib.unified_diff(old, new, str(self.path), f"{self.path} (new)")
        return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)


def draft() -> Draft:
    """Look around and put together the site file of the working directory, or the one that ``$CLUSTERCTL_SITE`` names.

    Raises:
        UsageProblem: what stands there, and would be kept, is wrong.
    """
    path = user_path(os.environ.get("CLUSTERCTL_SITE") or settings.FILE_NAME)
    before = text_of(path) if is_file(path) else None
    kept = yaml_text.read(path).values if before is not None else {}
    if unknown := sorted(set(kept) - set(settings.KEYS)):
        raise UsageProblem(f"{path} has unknown keys: {', '.join(unknown)}", hint="correct it, or move it away")
    seen = look_around()
    chosen = site_text.settings(seen)
    text = site_text.text(chosen, kept, _elsewhere(path))
    ours = {one.key for one in chosen if one.key in kept and kept[one.key] != one.value}
    made = Draft(path, text, before, seen, chosen, tuple(sorted(ours)), tuple(_notes(seen)))
    _check(made)
    return made


def write(made: Draft) -> Path | None:
    """Write it, through a link too. What stood there is kept beside it, whose path comes back.

    Raises:
        Unavailable: it cannot be written.
    """
    target = made.path.resolve()
    if made.before is None:
        write_atomic(target, made.text)
        return None
    # Whoever keeps it from others keeps both from them.
    mode = stat.S_IMODE(target.stat().st_mode)
    saved = target.with_name(f"{target.name}.old")
    write_atomic(saved, made.before, mode)
    write_atomic(target, made.text, mode)
    return saved


def look_around() -> Surroundings:
    """Everything that can be seen from here. What does not answer is a problem in words, and takes some seconds."""
    problems: list[str] = []
    slurm = _slurm(problems)
    machine, no_machine = _machine()
    modules, no_modules = around.modules()
    return Surroundings(
        hostname=socket.gethostname(),
        slurm=slurm,
        machine=machine,
        no_machine=no_machine,
        modules=modules,
        loaded=around.loaded_modules(),
        pythons=around.pythons(),
        conda_environments=around.conda_environments(),
        scratch=around.scratch(),
        hub=around.hub(),
        keys=around.set_variables(Secrets().names),
        problems=(*problems, *([no_modules] if no_modules else [])),
    )


def _slurm(problems: list[str]) -> SlurmSite | None:
    if shutil.which("sbatch") is None:
        return None
    from clusterctl.adapters import slurm_site
    from clusterctl.adapters.slurm import available

    if not available():
        return None
    try:
        return slurm_site.slurm_site()
    except Unavailable as e:
        problems.append(f"{e.message}: nothing is said of partitions; call init again when it answers")
        return None


def _machine() -> tuple[Machine | None, str]:
    from clusterctl.adapters import nvml

    try:
        return nvml.machine(), ""
    except Unavailable as e:
        return None, e.message


def _elsewhere(path: Path) -> dict[str, str]:
    """Where the weaker files say something: keys and their places."""
    if os.environ.get("CLUSTERCTL_SITE"):
        return {}
    said: dict[str, str] = {}
    for other in settings.site_files():
        if other != path:
            said |= {key: f"{other}:{line}" for key, line in yaml_text.read(other).lines.items() if "." not in key}
    return said


def _check(made: Draft) -> None:
    """The new text must be a site file, whatever was kept in it."""
    values: Mapping[str, Any] = yaml_text.scalar(made.text) or {}
    validate(Site, dict(values), lambda key: f"{made.path}: {key}", what="site file")


def _notes(seen: Surroundings) -> list[str]:
    """What the user should do or know, beside what the file says."""
    notes = list(seen.problems)
    best = seen.pythons[0]
    if not best.trains:
        missing = "torch" if "trainers" in best.has else "clusterctl"
        notes.append(f"{best.target} has no {missing}: pip install 'clusterctl[train]' there")
    if seen.slurm and best.target.startswith(_NOT_SHARED):
        notes.append(f"{best.target} may be on this machine only: the nodes must see it")
    if seen.slurm and any(gres.gpu_type is None for node in seen.slurm.nodes for gres in node.gpus):
        notes.append("some GPUs have no type in GRES: ask for them without one")
    if seen.hub.reached is False:
        where = seen.hub.endpoint or around.HUB
        notes.append(f"{where} was not reached from here: hugging_face.endpoint names a mirror, .offline asks nobody")
    if seen.keys:
        notes.append(f"set here: {', '.join(seen.keys)}. To keep them for jobs: {_keep(seen.keys)}")
    return notes


def _keep(names: tuple[str, ...]) -> str:
    """A command that writes the keys into the secrets file. The shell puts the values in, not we."""
    path = Secrets().file
    formats = "".join(f"{name}=%s\\n" for name in names)
    values = " ".join(f'"${name}"' for name in names)
    return f"(umask 077; mkdir -p {Path(path).parent}; printf '{formats}' {values} >> {path}; chmod 600 {path})"
