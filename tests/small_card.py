"""A Python that trains on a small card: it runs out of memory, in PyTorch's words, when too many rows come at once."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

from tests.project import Project

_CARD = """\
import json, runpy, sys
from pathlib import Path

import torch
import torch.nn.functional as functional

most, begins = {most}, {begins}
real, calls = functional.embedding, 0
attempt = __import__("os").environ["CLUSTERCTL_ATTEMPT"]

def embedding(ids, *rest, **more):
    global calls
    calls += 1
    if len(ids) > most and calls > begins:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
    with Path(f"rows-{{attempt}}.jsonl").open("a") as file:
        file.write(json.dumps([[word for word in row if word] for row in ids.tolist()]) + "\\n")
    return real(ids, *rest, **more)

functional.embedding = embedding
sys.argv = ["trainers", sys.argv[1]]
runpy.run_module("trainers", run_name="__main__", alter_sys=True)
"""


def use_small_card(project: Project, *, most: int, begins: int = 0) -> None:
    """Let the project train with at most ``most`` rows at once, after ``begins`` passes forward.

    Each passage is noted in ``rows-ATTEMPT.jsonl`` of the run directory.
    """
    card = project.folder.parent / f"card-{most}-{begins}.py"  # runs that were submitted before keep theirs
    card.write_text(_CARD.format(most=most, begins=begins), encoding="utf-8")
    python = card.with_suffix("")
    real, script = shlex.quote(sys.executable), shlex.quote(str(card))
    python.write_text(
        f'#!/bin/bash\n[[ $1 == -m && $2 == trainers ]] || exec {real} "$@"\nexec {real} {script} "$3"\n',
        encoding="utf-8",
    )
    python.chmod(0o755)
    site = project.folder / "clusterctl.yaml"
    kept = [line for line in site.read_text(encoding="utf-8").splitlines() if not line.startswith("environment:")]
    kept.append(f"environment: {{kind: python, path: {json.dumps(str(python))}}}")
    site.write_text("\n".join(kept) + "\n", encoding="utf-8")


def steps(run_dir: Path, attempt: int, passes: list[int]) -> list[list[str]]:
    """The rows of each step of an attempt, sorted, where ``passes`` passes make a step, in turn."""
    lines = (run_dir / f"rows-{attempt}.jsonl").read_text(encoding="utf-8").splitlines()
    found: list[list[str]] = []
    while lines:
        count = passes[len(found) % len(passes)]
        found.append(sorted(json.dumps(row) for line in lines[:count] for row in json.loads(line)))
        lines = lines[count:]
    return found
