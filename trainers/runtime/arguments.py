"""From our configuration to the arguments of transformers' Trainer, which all of TRL's trainers share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from trainers.config import RunConfig
from trainers.runtime import checkpoints


def shared_arguments(config: RunConfig, run_dir: Path, device: str) -> dict[str, Any]:
    """Keyword arguments for a TrainingArguments. Everything that matters is said: defaults drift."""
    optim, output = config.optim, config.output
    return {
        "output_dir": str(run_dir / checkpoints.FOLDER),
        "learning_rate": optim.learning_rate,
        "lr_scheduler_type": optim.lr_scheduler_type,
        "warmup_steps": optim.warmup_steps,
        "weight_decay": optim.weight_decay,
        "adam_beta1": optim.adam_beta1,
        "adam_beta2": optim.adam_beta2,
        "max_grad_norm": optim.max_grad_norm,
        "optim": optim.optim,
        "num_train_epochs": optim.num_train_epochs,
        "max_steps": optim.max_steps,
        "per_device_train_batch_size": optim.per_device_train_batch_size,
        "per_device_eval_batch_size": optim.per_device_eval_batch_size,
        "gradient_accumulation_steps": optim.gradient_accumulation_steps,
        "dataloader_num_workers": optim.dataloader_num_workers,
        "dataloader_pin_memory": device == "cuda",
        "seed": optim.seed,
        "data_seed": optim.seed,
        "activation_checkpointing": config.model.gradient_checkpointing,
        "activation_checkpointing_kwargs": {"use_reentrant": False} if config.model.gradient_checkpointing else None,
        "torch_compile": config.model.torch_compile,
        "use_liger_kernel": config.model.use_liger_kernel,
        # The loss is computed by TRL's fused head.
        "liger_kernel_config": {"fused_linear_cross_entropy": False, "cross_entropy": False},
        "bf16": config.precision.dtype == "bf16",
        "fp16": config.precision.dtype == "fp16",
        "tf32": config.precision.tf32 if device == "cuda" and torch.cuda.get_device_capability()[0] >= 8 else None,
        "use_cpu": device == "cpu",
        "ddp_backend": "gloo" if device == "cpu" and config.parallel.world_size > 1 else None,
        "ddp_timeout": config.parallel.ddp_timeout,
        "ddp_find_unused_parameters": False,
        "average_tokens_across_devices": True,
        "logging_strategy": "steps",
        "logging_steps": output.logging_steps,
        "logging_first_step": True,
        # With the filter a diverged run reports a loss of 0.
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "save_steps": output.save_steps,
        # We rotate ourselves: the Trainer also counts checkpoints that are not whole.
        "save_total_limit": None,
        # Without held-out rows there is nothing to measure, and transformers raises.
        "eval_strategy": "steps" if config.eval.eval_steps and config.data.holds_out else "no",
        "eval_steps": config.eval.eval_steps,
        "report_to": "none",
        "disable_tqdm": True,
    }
