"""What is imported comes with what a user installs: the tests' environment holds more than a user's."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
OPTIONAL = {"deepspeed", "wandb", "flash_attn", "bitsandbytes", "verl", "ray", "vllm", "liger_kernel"}
"""Asked for by name before they are imported, or an extra of their own."""
OURS = {"clusterctl", "trainers", *(path.stem for path in ROOT.glob("examples/**/*.py"))}


def imported() -> Iterator[tuple[str, Path]]:
    """Every module that is imported, and where; the first word of its name."""
    for path in (path for folder in ("clusterctl", "trainers", "examples") for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((alias.name.partition(".")[0], path) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module.partition(".")[0], path


def installed_with(wanted: list[str]) -> set[str]:
    """The distributions that these requirements bring, and all that those need."""
    found: set[str] = set()
    waiting = [Requirement(text) for text in wanted]
    while waiting:
        one = waiting.pop()
        name, extras = canonicalize_name(one.name), {"", *one.extras}
        if one.marker and not any(one.marker.evaluate({"extra": extra}) for extra in extras):
            continue
        if name in found:
            continue
        found.add(name)
        try:
            needs = [Requirement(text) for text in requires(name) or ()]
        except PackageNotFoundError:
            continue
        waiting += [n for n in needs if not n.marker or any(n.marker.evaluate({"extra": e}) for e in extras)]
    return found


def test_nothing_is_imported_that_a_user_does_not_get() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    there = installed_with([*project["dependencies"], *project["optional-dependencies"]["train"]])
    of = packages_distributions()
    missing = {
        f"{path.relative_to(ROOT)}: {name}"
        for name, path in imported()
        if name not in sys.stdlib_module_names | OURS | OPTIONAL
        and not there & {canonicalize_name(dist) for dist in of.get(name, [name])}
    }
    assert not missing
