"""DeepSpeed for the strategies zero1, zero2 and zero3: its configuration, made from ``run.yaml`` and kept beside it.

ZeRO shares out what every process of a plain data parallel run holds whole (https://arxiv.org/abs/1910.02054):
stage 1 the states of the optimizer, stage 2 the gradients too, stage 3 the weights too. Half precision runs keep
an fp32 copy of the weights that learn in the optimizer.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from trainers.config import RunConfig
from trainers.errors import InputProblem, RunProblem
from trainers.runtime.files import write_json

_alive: Any = None
"""transformers looks the configuration up through a weak reference when it loads a model: somebody has to hold it."""


def start(config: RunConfig, run_dir: Path, device: str) -> str | None:
    """Write ``deepspeed.json``, bring the processes together, and return its path; None for other strategies.

    To be called before the model is loaded: under ZeRO-3 each process loads only its share. Every process writes
    the same bytes, atomically, so none has to wait for another. Raises TrainerError.
    """
    global _alive
    _alive = None
    parallel = config.parallel
    if not parallel.deepspeed:
        return None
    try:
        import deepspeed
    except ImportError as e:
        raise RunProblem(
            f"strategy {parallel.strategy} needs DeepSpeed: {e}", hint="pip install 'clusterctl[deepspeed]'"
        ) from e
    if "RANK" not in os.environ:
        raise InputProblem(
            f"strategy {parallel.strategy} was started as a plain python process",
            hint="start it as job.sh does: torchrun --nproc_per_node ... -m trainers RUN_DIR/run.yaml",
        )
    path = run_dir / "deepspeed.json"
    write_json(path, deepspeed_config(config, device))
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    else:
        # A faster all-reduce within one machine, which a compiler would build for a minute: gloo does.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(
        "nccl" if device == "cuda" else "gloo",
        auto_mpi_discovery=False,
        verbose=False,
        timeout=timedelta(seconds=parallel.ddp_timeout),
    )
    from transformers.integrations import HfDeepSpeedConfig

    _alive = HfDeepSpeedConfig(str(path))
    return str(path)


def deepspeed_config(config: RunConfig, device: str) -> dict[str, Any]:
    """The configuration itself. Optimizer and schedule are the Trainer's, so they are not in it."""
    optim, parallel = config.optim, config.parallel
    return {
        "zero_optimization": _zero(int(parallel.strategy.removeprefix("zero")), parallel.offload, device),
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


def _zero(stage: int, offload: str, device: str) -> dict[str, Any]:
    host = {"device": "cpu", "pin_memory": device == "cuda"}
    zero: dict[str, Any] = {"stage": stage, "contiguous_gradients": True, "overlap_comm": device == "cuda"}
    if stage < 3:
        # In numbers, not bytes. With overlap several such buffers exist: DeepSpeed's default of 5e8 takes 9 GB of
        # a card in half precision, and this is well beyond what saturates a link.
        zero |= {"reduce_scatter": True, "reduce_bucket_size": int(5e7), "allgather_bucket_size": int(5e7)}
    else:
        # "auto": transformers takes them from the width of the model.
        zero |= {
            "reduce_bucket_size": "auto",
            "stage3_prefetch_bucket_size": "auto",
            "stage3_param_persistence_threshold": "auto",
            # Whole weights, in whatever format the run has: final_model loads like any other model.
            "stage3_gather_16bit_weights_on_model_save": True,
        }
    if offload != "none":
        zero["offload_optimizer"] = host
    if offload == "all":
        zero["offload_param"] = host
    return zero
