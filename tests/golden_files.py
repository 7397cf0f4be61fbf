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
from clusterctl.plan.inventory import Inventory, Offer
from clusterctl.runs.draft import draft
from clusterctl.runs.request import Request
from clusterctl.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden"
SITE = {
    "scheduler": "slurm",
    "partitions": {"a800": "a800", "a40": "a40", "gpu": "gpu", "cpu": "cpu"},
    "modules": ["cuda12.2/toolkit/12.2.2", "Anaconda3/2023.09-0"],
    "environment": {"kind": "conda", "name": "clusterctl"},
}
GIB = 2**30
CLUSTER = Inventory(
    "slurm",
    (
        Offer("a40", None, 1, 4, 4, 4, "a40", cpus_per_node=48, host_memory=500 * GIB),
        Offer("a800", None, 2, 4, 8, 8, "a800", cpus_per_node=64, host_memory=1000 * GIB),
    ),
)
"""What the cluster of these files has, whatever machine they are written on."""

MACHINE = Inventory("local", ())

NAMES = ("a40-1", "a40-4-zero3-offload", "a800-1", "a800-2x4-zero3", "a800-4", "a800-4-fsdp", "gpu-2-zero2-offload")
"""Profiles that need no file: one of each kind."""

UNDER = {"dpo": "a800-4-zero3", "ppo": "a800-4", "stage1": "a800-4", "stage2": "a800-4", "two-stage": "a800-4"}
"""Profiles of the recipes that name none, where it is not one A40."""

_RUN_ID = re.compile(r"-\d{8}-[0-9a-f]{4}\b")


def shipped(kind: assets.Kind) -> list[str]:
    """The names of all shipped recipes or profiles."""
    ending = {"recipes": ".yaml", "profiles": ".yaml", "job_templates": ".j2"}[kind]
    return sorted(path.name.removesuffix(ending) for path in assets.shipped_dir(kind).glob(f"*{ending}"))


def cases() -> Iterator[tuple[str, Request]]:
    """The name of every golden file and the request behind it: each recipe, each profile, and this machine."""
    for name in shipped("recipes"):
        named = yaml_text.read(assets.find("recipes", name).path).values.get("profile")
        yield f"recipe-{name}", Request(name, profile=None if named else UNDER.get(name, "a40-1"), force_start=True)
    for name in (*shipped("profiles"), *NAMES):
        yield f"profile-{name}", Request("sft", profile=name)
    yield "local-sft", Request("sft", scheduler="local")


def text_of(request: Request) -> str:
    """The scripts that a dry run prints, each with the run.yaml that would lie beside it."""
    parts = []
    for one in draft(request, Settings(SITE, {}), MACHINE if request.scheduler == "local" else CLUSTER):
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
