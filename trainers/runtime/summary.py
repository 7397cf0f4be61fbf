"""``training_metrics.json``: the run in numbers, for ``test``, tables and comparisons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from trainers.model.freeze import size
from trainers.runtime.files import read_json, write_json
from trainers.runtime.meter import peak_memory
from trainers.runtime.records import history


def write_summary(run_dir: Path, trainer: Any, rows: dict[str, int], train_seconds: float) -> None:
    """Write the summary of a finished run. ``rows`` counts the rows used, cut and dropped; ``tokens`` and
    ``train_seconds`` are those of the last attempt that trained, all of its training loop included."""
    path, tokens = run_dir / "training_metrics.json", trainer.meter.all_tokens
    if not tokens and (earlier := read_json(path)):
        # There was nothing left to train.
        tokens, train_seconds = earlier.get("tokens", 0), earlier.get("train_seconds", 0.0)
    weights = list(trainer.accelerator.unwrap_model(trainer.model).parameters())
    write_json(
        path,
        {
            "steps": trainer.state.global_step,
            "epochs": trainer.state.epoch,
            **told(run_dir, trainer.state.global_step),
            "tokens": tokens,
            "train_seconds": train_seconds,
            "peak_memory": peak_memory(),
            "trainable_parameters": sum(size(weight) for weight in weights if weight.requires_grad),
            "total_parameters": sum(size(weight) for weight in weights),
            "world_size": trainer.args.world_size,
            "model_type": getattr(getattr(trainer.model, "config", None), "model_type", None),
            "adapter": "lora" if hasattr(trainer.model, "peft_config") else "none",
            "gpu": _gpu(),
            "rows": rows,
        },
    )


def told(run_dir: Path, last_step: int) -> dict[str, Any]:
    """What the lines of ``metrics.jsonl`` say of the whole run."""
    story = history(run_dir)
    losses = [line["loss"] for line in story if line.get("loss") is not None]
    measured = [line for line in story if any(name.startswith("eval_") for name in line)]
    speeds = [line for line in story if "tokens_per_second" in line]
    # The first step also warms caches up; without it, unless it is all there is.
    steady = speeds[1:] or speeds
    return {
        "first_loss": losses[0] if losses else None,
        "last_loss": losses[-1] if losses else None,
        "eval_before": _evaluation(measured, 0),
        "eval_after": _evaluation(measured, last_step),
        "tokens_per_second": _mean(steady, "tokens_per_second"),
        "seconds_per_step": _mean(steady, "seconds_per_step"),
        "mfu": _mean(steady, "mfu"),
        "gpu_utilization": _mean(steady, "gpu_utilization"),
        "data_wait": _mean(steady, "data_wait"),
    }


def _gpu() -> dict[str, Any] | None:
    """Name and bytes of the GPU of this process; None without one."""
    if not (torch.cuda.is_available() and torch.cuda.is_initialized()):
        return None
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    return {"name": properties.name, "memory": properties.total_memory}


def _evaluation(measured: list[dict[str, Any]], step: int) -> dict[str, float] | None:
    found = [line for line in measured if line["step"] == step]
    return {name: value for name, value in found[-1].items() if name.startswith("eval_")} if found else None


def _mean(lines: list[dict[str, Any]], name: str) -> float | None:
    found = [line[name] for line in lines if line.get(name) is not None]
    return sum(found) / len(found) if found else None
