"""The DeepSpeed configuration of a ZeRO-2 run, made from ``run.yaml`` and kept beside it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from trainers.config import RunConfig
from trainers.errors import InputProblem, RunProblem
from trainers.runtime.files import write_json


def write_config(config: RunConfig, run_dir: Path, device: str) -> str | None:
    """Write ``deepspeed.json`` and return its path; None for a run without DeepSpeed. Raises TrainerError.

    Every process writes the same bytes, atomically, so none has to wait for another.
    """
    if config.parallel.strategy != "zero2":
        return None
    try:
        import deepspeed  # noqa: F401
    except ImportError as e:
        raise RunProblem(f"strategy zero2 needs DeepSpeed: {e}", hint="pip install 'clusterctl[deepspeed]'") from e
    if "RANK" not in os.environ:
        raise InputProblem(
            "strategy zero2 was started as a plain python process",
            hint="start it as job.sh does: torchrun --nproc_per_node ... -m trainers RUN_DIR/run.yaml",
        )
    path = run_dir / "deepspeed.json"
    write_json(path, deepspeed_config(config, device))
    return str(path)


def deepspeed_config(config: RunConfig, device: str) -> dict[str, Any]:
    """The configuration itself. Optimizer and schedule are the Trainer's, so they are not in it."""
    optim, parallel = config.optim, config.parallel
    zero: dict[str, Any] = {
        "stage": 2,
        "contiguous_gradients": True,
        "overlap_comm": device == "cuda",
        "reduce_scatter": True,
        "reduce_bucket_size": int(5e8),
        "allgather_bucket_size": int(5e8),
    }
    if parallel.offload == "optimizer":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": device == "cuda"}
    return {
        "zero_optimization": zero,
        # PyTorch's fused AdamW is as good on a CPU as DeepSpeed's own, and needs no compiler on the node.
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": config.precision.dtype == "bf16"},
        "fp16": {"enabled": config.precision.dtype == "fp16"},
        "train_micro_batch_size_per_gpu": optim.per_device_train_batch_size,
        "gradient_accumulation_steps": optim.gradient_accumulation_steps,
        "train_batch_size": optim.per_device_train_batch_size * optim.gradient_accumulation_steps * parallel.world_size,
        "gradient_clipping": optim.max_grad_norm,
        "steps_per_print": int(1e9),
    }
