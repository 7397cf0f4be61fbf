"""Where recipes, profiles and job templates are found, and nothing else.

First hit wins: an explicit path, ``./<kind>/``, ``$CLUSTERCTL_PATH``, the user's configuration directory,
``/etc/clusterctl``, what is shipped.
"""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from clusterctl.errors import NotFound, UsageProblem
from clusterctl.paths import is_dir, is_file, user_path

Kind = Literal["recipes", "profiles", "job_templates"]
_ENDINGS = {"recipes": ".yaml", "profiles": ".yaml", "job_templates": ".j2"}


@dataclass(frozen=True)
class Asset:
    """A file that was found: where it comes from in words, and the same-named files that it hides."""

    name: str
    path: Path
    origin: str
    shadows: tuple[Path, ...] = ()


def user_config_dir() -> Path:
    """``$XDG_CONFIG_HOME/clusterctl``, or ``~/.config/clusterctl``."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return user_path(base or "~/.config") / "clusterctl"


def shipped_dir(kind: Kind) -> Path:
    """The folder that came with the program: inside the wheel, or at the top of a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "_shipped" / kind
    return inside if inside.is_dir() else package.parent / kind


def places(kind: Kind) -> list[tuple[str, Path]]:
    """The folders that are searched, in order, each with its origin in words. Those that are not there are left out.

    Raises:
        UsageProblem: the working directory, or one that ``$CLUSTERCTL_PATH`` names, cannot be looked at.
    """
    extra = [user_path(p) for p in os.environ.get("CLUSTERCTL_PATH", "").split(os.pathsep) if p]
    found = [
        ("working directory", user_path(kind)),
        *(("CLUSTERCTL_PATH", p / kind) for p in extra),
        ("user", user_config_dir() / kind),
        ("site", Path("/etc/clusterctl") / kind),
        ("shipped", shipped_dir(kind)),
    ]
    unique: dict[Path, str] = {}
    for origin, folder in found:
        if not is_dir(folder):
            continue
        real = folder.resolve()
        # In a checkout the working directory *is* what is shipped.
        if real not in unique or origin == "shipped":
            unique[real] = origin
    return [(origin, folder) for folder, origin in unique.items()]


def listing(kind: Kind) -> list[Asset]:
    """Everything of this kind, by name, each with what it hides."""
    ending = _ENDINGS[kind]
    hits: dict[str, list[tuple[str, Path]]] = {}
    for origin, folder in places(kind):
        for path in sorted(folder.glob(f"*{ending}")):
            if is_file(path):
                hits.setdefault(path.name.removesuffix(ending), []).append((origin, path))
    return [
        Asset(name, found[0][1], found[0][0], tuple(path for _, path in found[1:]))
        for name, found in sorted(hits.items())
    ]


def find(kind: Kind, name: str) -> Asset:
    """A shipped or own asset by name, or any file by path.

    Raises:
        NotFound: a path that does not exist.
        UsageProblem: a path that cannot be looked at, or an unknown name; the hint has the nearest ones.
    """
    ending = _ENDINGS[kind]
    if os.sep in name or name.endswith(ending):
        path = user_path(name)
        if not is_file(path):
            raise NotFound(f"there is no file {path}", hint=f"clusterctl {kind} list shows what can be named")
        return Asset(path.name.removesuffix(ending), path, "path")
    known = listing(kind)
    for asset in known:
        if asset.name == name:
            return asset
    names = [asset.name for asset in known]
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    singular = kind.removesuffix("s").replace("_", " ")
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(names)}"
    raise UsageProblem(f"unknown {singular} {name!r}", hint=hint)
