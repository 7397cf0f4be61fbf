"""What a finished or broken run leaves for people: how it was started, on what, and how it went."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

from trainers.config import RunConfig
from trainers.runtime.files import read_lines, write_atomically

log = logging.getLogger(__name__)

PACKAGES = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "deepspeed",
    "bitsandbytes",
    "datasets",
    "tokenizers",
    "numpy",
    "swanlab",
    "tensorboard",
    "wandb",
)

VARIABLES = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "GLIBC_TUNABLES", "SLURM_JOB_ID", "SLURM_JOB_NODELIST")
"""The only environment variables that are recorded; any other may hold a secret."""


def write_command(run_dir: Path, config: RunConfig) -> None:
    """``train_command.txt``: what repeats this run, to be typed in the run directory."""
    parallel = config.parallel
    shape = [f"--nnodes={parallel.num_nodes}", f"--nproc_per_node={parallel.processes_per_node}"]
    starter = [Path(sys.executable).name] if parallel.launcher == "python" else ["torchrun", *shape]
    command = shlex.join([*starter, "-m", "trainers", "run.yaml"])
    write_atomically(run_dir / "train_command.txt", f"# in this directory, or all of it: bash job.sh\n{command}\n")


def write_environment(run_dir: Path, processes: int, machines: list[dict[str, Any]]) -> None:
    """``environment_info.txt``: versions, machines and GPUs of this attempt."""
    import torch

    lines = [
        f"python: {platform.python_version()} ({sys.executable})",
        f"processes: {processes}",
        f"cuda: {torch.version.cuda or 'none'}",
        f"git commit: {git_commit() or 'unknown'}",
    ]
    for machine in machines:
        lines.append(f"host: {machine['host']}")
        lines.append(f"  {machine['platform']}, {machine['cpus']} cpus, {machine['threads']} torch threads")
        lines += [f"  gpu: {gpu['name']}, {gpu['memory'] // 2**20} MiB, {gpu['uuid']}" for gpu in machine["gpus"]]
    lines += [f"{name}: {os.environ[name]}" for name in VARIABLES if name in os.environ]
    lines += [f"{name}: {version(name)}" for name in PACKAGES]
    write_atomically(run_dir / "environment_info.txt", "\n".join(lines) + "\n")


def version(package: str) -> str:
    """The installed version of a package, or ``not installed``."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def git_commit() -> str | None:
    """The commit of this code that is checked out, read from git's own files; None outside a checkout."""
    git = Path(__file__).resolve().parents[2] / ".git"
    try:
        head = (git / "HEAD").read_text(encoding="utf-8").strip()
        if not head.startswith("ref: "):
            return head
        reference = head.removeprefix("ref: ")
        if (git / reference).is_file():
            return (git / reference).read_text(encoding="utf-8").strip()
        packed = (git / "packed-refs").read_text(encoding="utf-8").splitlines()
        return next((line.split()[0] for line in packed if line.endswith(f" {reference}")), None)
    except OSError:
        return None


def history(run_dir: Path) -> list[dict[str, Any]]:
    """The metrics of a run as one story: where a later attempt did steps again, its lines count.

    Of one step the line of training comes first, then that of held-out rows, then the ``result``.
    """
    story: dict[tuple[int, int], dict[str, Any]] = {}
    attempt = None
    for line in read_lines(run_dir / "metrics.jsonl"):
        if line["attempt"] != attempt:
            attempt = line["attempt"]
            story = {place: earlier for place, earlier in story.items() if place[0] <= line["step"]}
        kind = 2 if line.get("result") else any(name.startswith("eval_") for name in line)
        story[line["step"], kind] = line
    return [story[place] for place in sorted(story)]


def draw_curves(run_dir: Path) -> None:
    """``training_curves.png``: loss, held-out loss and learning rate by step."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError as e:
        log.warning("no training_curves.png: %s (pip install matplotlib)", e)
        return
    story = history(run_dir)
    figure, (above, below) = pyplot.subplots(2, sharex=True, figsize=(8, 6), height_ratios=(3, 1))
    for name, label, axes, style in (
        ("loss", "training loss", above, "-"),
        ("eval_loss", "held-out loss", above, "o--"),
        ("reward", "training reward", above, "-"),
        ("eval_reward", "held-out reward", above, "o--"),
        ("learning_rate", "learning rate", below, "-"),
    ):
        points = [(line["step"], line[name]) for line in story if line.get(name) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=label)
            axes.legend()
        axes.grid(alpha=0.3)
    below.set_xlabel("step")
    figure.tight_layout()
    figure.savefig(run_dir / "training_curves.png", dpi=120)
    pyplot.close(figure)
