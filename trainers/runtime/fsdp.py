"""Strategy ``fsdp``: PyTorch's fully sharded data parallelism, version 2, through accelerate.

Every decoder layer is a unit whose weights, gradients and optimizer states are shared out over the processes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from trainers.config import RunConfig
from trainers.errors import RunProblem
from trainers.runtime.files import write_json


def start(config: RunConfig, run_dir: Path, device: str) -> dict[str, Any]:
    """Write ``fsdp.json`` and return the arguments of a TrainingArguments that belong to it; none for others.

    Raises RunProblem without GPUs: accelerate would quietly train with DDP instead.
    """
    if config.parallel.strategy != "fsdp":
        return {}
    if device == "cpu":
        raise RunProblem(
            "strategy fsdp needs GPUs: accelerate turns it into ddp on a CPU",
            hint="take profile.strategy ddp, zero2 or zero3 there",
        )
    path = run_dir / "fsdp.json"
    write_json(path, fsdp_config(config))
    # What `accelerate launch --use_fsdp` exports. From these accelerate sees that tensors in host memory travel
    # too, which NCCL cannot send: gloo has to be there beside it.
    os.environ.update(
        ACCELERATE_USE_FSDP="true",
        FSDP_VERSION="2",
        FSDP_STATE_DICT_TYPE="FULL_STATE_DICT",
        FSDP_OFFLOAD_PARAMS=str(config.parallel.offload == "all").lower(),
    )
    # FSDP recomputes activations per unit itself; both at once would do it twice.
    return {"fsdp": True, "fsdp_config": str(path), "activation_checkpointing": False}


def fsdp_config(config: RunConfig) -> dict[str, Any]:
    """The configuration in transformers' words. The layers to wrap are those that the model's class names."""
    return {
        "version": 2,
        "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "reshard_after_forward": True,
        "cpu_offload": config.parallel.offload == "all",
        # Whole weights and states: a checkpoint does not depend on how many processes wrote it.
        "state_dict_type": "FULL_STATE_DICT",
        "cpu_ram_efficient_loading": False,
        "activation_checkpointing": config.model.gradient_checkpointing,
    }
