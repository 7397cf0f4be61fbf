"""Golden files: what a dry run of every shipped recipe and profile prints, and the run.yaml beside it.

``python -m tests.golden_files`` writes them anew; look at the difference before you commit it. What differs from one
machine or day to another (the checkout's path, the Python, our version, run ids) is replaced by a word.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from clusterctl import __version__, assets, yaml_text
from clusterctl.runs.draft import Request, draft
from clusterctl.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden"
SITE = {
    "scheduler": "slurm",
    "partitions": {"a800": "a800", "a40": "a40", "gpu": "gpu", "cpu": "cpu"},
    "modules": ["cuda12.2/toolkit/12.2.2", "Anaconda3/2023.09-0"],
    "environment": {"kind": "conda", "name": "clusterctl"},
}
_RUN_ID = re.compile(r"-\d{8}-[0-9a-f]{4}\b")


def shipped(kind: assets.Kind) -> list[str]:
    """The names of all shipped recipes or profiles."""
    ending = {"recipes": ".yaml", "profiles": ".yaml", "job_templates": ".j2"}[kind]
    return sorted(path.name.removesuffix(ending) for path in assets.shipped_dir(kind).glob(f"*{ending}"))


def cases() -> Iterator[tuple[str, Request]]:
    """The name of every golden file and the request behind it: each recipe, each profile, and this machine."""
    for name in shipped("recipes"):
        yield f"recipe-{name}", Request(name, force_start=True)
    for name in shipped("profiles"):
        yield f"profile-{name}", Request("sft", profile=name)
    yield "local-sft", Request("sft", scheduler="local")


def text_of(request: Request) -> str:
    """The scripts that a dry run prints, each with the run.yaml that would lie beside it."""
    parts = []
    for one in draft(request, Settings(SITE, {})):
        config = yaml_text.dump(one.composed.config.model_dump(mode="json"))
        parts.append(f"{one.script}\n# --- run.yaml {'-' * 83}\n{_commented(config)}")
    text = "\n".join(parts).replace(str(ROOT), "/CHECKOUT").replace(sys.executable, "/PYTHON")
    text = text.replace(f"clusterctl {__version__}.", "clusterctl VERSION.")
    return _RUN_ID.sub("-DATE-ID", text)


def _commented(text: str) -> str:
    return "".join(f"# {line}\n" for line in text.splitlines())


def write() -> None:
    """Write all golden files, and remove those that nothing is behind any more."""
    GOLDEN.mkdir(exist_ok=True)
    names = set()
    for name, request in cases():
        (GOLDEN / f"{name}.sh").write_text(text_of(request), encoding="utf-8")
        names.add(f"{name}.sh")
    for path in GOLDEN.iterdir():
        if path.name not in names:
            path.unlink()


if __name__ == "__main__":
    os.chdir(ROOT)
    write()
