"""From run.yaml to the overrides of ``python -m verl.trainer.main_ppo``: pure, written for verl 0.9."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from trainers.config import RunConfig
from trainers.config.stages.grpo import GrpoMethod

LOSSES = {
    "grpo": "seq-mean-token-mean",
    "bnpo": "token-mean",
    "dapo": "token-mean",
    "dr_grpo": "seq-mean-token-sum-norm",
}
"""TRL's ``loss_type`` in verl's words for the same mean."""

DTYPES = {"fp32": "float32", "bf16": "bfloat16"}


def steps_of(config: RunConfig, prompts: int) -> int:
    """Optimiser steps of the run: as given, else whole batches of prompts times epochs; at least 1."""
    if config.optim.max_steps > 0:
        return config.optim.max_steps
    return max(1, int(config.optim.num_train_epochs * (prompts // prompts_in_step(config))))


def prompts_in_step(config: RunConfig) -> int:
    """Prompts of one optimiser step, over all GPUs."""
    optim = config.optim
    answers = optim.per_device_train_batch_size * optim.gradient_accumulation_steps * config.parallel.world_size
    return answers // config.method.num_generations


def overrides(
    config: RunConfig, run_dir: Path, attempt: int, model: str, adapter: str | None, prompts: int, held_out: int
) -> list[str]:
    """All ``key=value`` words, in verl's order of sections.

    Args:
        config: the run, which ``trainers.config.engines`` has found possible.
        run_dir: where everything is written; absolute.
        attempt: its number; verl begins its metrics file anew each time.
        model: what ``from_pretrained`` loads.
        adapter: directory of an adapter to go on training.
        prompts: training prompts that were written.
        held_out: held-out prompts that were written; 0 for none.
    """
    values = {
        **_algorithm(config),
        **_data(config, run_dir),
        **_actor(config, model, adapter),
        **_rollout(config),
        **(_critic(config, model) if config.stage == "ppo" else {}),
        **_trainer(config, run_dir, prompts, held_out),
    }
    workers = {
        f"+ray_kwargs.ray_init.runtime_env.env_vars.{k}": v for k, v in _variables(config, run_dir, attempt).items()
    }
    return [f"{key}={word(value)}" for key, value in (values | workers).items()]


def _variables(config: RunConfig, run_dir: Path, attempt: int) -> dict[str, str]:
    """Environment of all of Ray's workers, one of which writes the metrics. Keys of trackers come from the job."""
    return {
        "VERL_FILE_LOGGER_PATH": str(run_dir / "verl" / f"metrics-{attempt}.jsonl"),
        "TENSORBOARD_DIR": str(run_dir / "tensorboard"),
        "SWANLAB_LOG_DIR": str(run_dir / "swanlog"),
        "SWANLAB_MODE": config.tracking.swanlab_mode,
        "WANDB_DIR": str(run_dir),
        "WANDB_MODE": config.tracking.wandb_mode,
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }


def word(value: Any) -> str:
    """A value as Hydra reads it: https://hydra.cc/docs/advanced/override_grammar/basic/."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(word(item) for item in value)}]"
    if isinstance(value, str):
        # Backslashes count only in front of what has a meaning: `${`, a quote, and the quote at the end.
        text = re.sub(r"(\\*)\$\{", r"\1\1\\${", value)
        return "'" + re.sub(r"(\\*)(?:'|\Z)", lambda m: 2 * m[1] + ("\\'" if m[0].endswith("'") else ""), text) + "'"
    return repr(value)


def _algorithm(config: RunConfig) -> dict[str, Any]:
    method = config.method
    if isinstance(method, GrpoMethod):
        return {
            "algorithm.adv_estimator": "grpo",
            "algorithm.norm_adv_by_std_in_grpo": method.scale_rewards == "group",
            "algorithm.use_kl_in_reward": False,
        }
    return {
        "algorithm.adv_estimator": "gae",
        "algorithm.gamma": method.gamma,
        "algorithm.lam": method.lam,
        "algorithm.use_kl_in_reward": method.kl_coef > 0,
        "algorithm.kl_ctrl.kl_coef": method.kl_coef,
    }


def _data(config: RunConfig, run_dir: Path) -> dict[str, Any]:
    return {
        "data.train_files": str(run_dir / "verl" / "train.parquet"),
        "data.val_files": str(run_dir / "verl" / "held_out.parquet"),
        "data.train_batch_size": prompts_in_step(config),
        "data.max_prompt_length": config.method.verl.max_prompt_length,
        "data.max_response_length": config.method.max_completion_length,
        "data.filter_overlong_prompts": True,
        "data.truncation": "error",
        "data.shuffle": True,
        "data.seed": config.optim.seed,
        "data.trust_remote_code": config.model.trust_remote_code,
        "reward.custom_reward_function.path": str(run_dir / "verl" / "reward.py"),
        "reward.custom_reward_function.name": "compute_score",
    }


def _actor(config: RunConfig, model: str, adapter: str | None) -> dict[str, Any]:
    method, optim, lora = config.method, config.optim, config.model.lora
    grpo = isinstance(method, GrpoMethod)
    clip = method.epsilon if grpo else method.cliprange
    adapted = config.model.adapter == "lora"
    values = {
        "model.path": model,
        "model.trust_remote_code": config.model.trust_remote_code,
        "model.enable_gradient_checkpointing": config.model.gradient_checkpointing,
        "model.use_liger": config.model.use_liger_kernel,
        "model.lora_rank": lora.r if adapted else 0,
        "model.lora_alpha": lora.lora_alpha,
        "model.target_modules": "all-linear" if lora.target_modules == ["all-linear"] else lora.target_modules,
        "model.lora_adapter_path": adapter,
        "actor.ppo_mini_batch_size": prompts_in_step(config),
        "actor.ppo_micro_batch_size_per_gpu": optim.per_device_train_batch_size,
        "actor.ppo_epochs": method.num_iterations if grpo else 1,
        "actor.clip_ratio": clip,
        "actor.clip_ratio_low": clip,
        "actor.clip_ratio_high": clip,
        "actor.loss_agg_mode": LOSSES[method.loss_type] if grpo else "token-mean",
        "actor.loss_scale_factor": method.max_completion_length if grpo and method.loss_type == "dr_grpo" else None,
        "actor.use_kl_loss": grpo and method.beta > 0,
        "actor.kl_loss_coef": method.beta if grpo else 0.0,
        "actor.kl_loss_type": "low_var_kl",
        "actor.grad_clip": optim.max_grad_norm,
        "actor.data_loader_seed": optim.seed,
    }
    values |= _optimiser(config, "actor.optim", optim.learning_rate) | _sharding(config, "actor.fsdp_config")
    values |= {
        "ref.log_prob_micro_batch_size_per_gpu": optim.per_device_train_batch_size,
        "ref.fsdp_config.param_offload": config.parallel.offload == "all",
        "ref.fsdp_config.dtype": DTYPES[config.precision.dtype],
    }
    return {f"actor_rollout_ref.{key}": value for key, value in values.items()}


def _rollout(config: RunConfig) -> dict[str, Any]:
    method, verl = config.method, config.method.verl
    values = {
        "name": verl.rollout,
        "n": method.num_generations,
        "temperature": method.temperature,
        "top_p": method.top_p,
        "seed": config.optim.seed,
        "dtype": DTYPES[config.precision.dtype],
        "gpu_memory_utilization": verl.gpu_memory_utilization,
        "tensor_model_parallel_size": verl.tensor_model_parallel_size,
        "log_prob_micro_batch_size_per_gpu": config.optim.per_device_train_batch_size,
        # An adapter is put on top of weights that have to be there already.
        "load_format": "safetensors" if config.model.adapter == "lora" else "dummy",
        # Held-out prompts are answered as in training, one answer each.
        "val_kwargs.do_sample": True,
        "val_kwargs.temperature": method.temperature,
        "val_kwargs.top_p": method.top_p,
        "val_kwargs.n": 1,
    }
    return {f"actor_rollout_ref.rollout.{key}": value for key, value in values.items()}


def _critic(config: RunConfig, model: str) -> dict[str, Any]:
    """The value model: the same weights with a head of its own, all of them trained."""
    return {
        "critic.model.path": model,
        "critic.model.trust_remote_code": config.model.trust_remote_code,
        "critic.model.enable_gradient_checkpointing": config.model.gradient_checkpointing,
        "critic.ppo_micro_batch_size_per_gpu": config.optim.per_device_train_batch_size,
        "critic.data_loader_seed": config.optim.seed,
        **_optimiser(config, "critic.optim", config.method.verl.critic_learning_rate),
        **_sharding(config, "critic.fsdp"),
    }


def _optimiser(config: RunConfig, section: str, learning_rate: float) -> dict[str, Any]:
    optim = config.optim
    # To verl a constant rate is one that may warm up first, to transformers one that does not.
    warmup = 0.0 if optim.lr_scheduler_type == "constant" else optim.warmup_steps
    steps, share = (-1, warmup) if warmup < 1 else (int(warmup), 0.0)
    values = {
        "lr": learning_rate,
        "lr_warmup_steps": steps,
        "lr_warmup_steps_ratio": share,
        "lr_scheduler_type": "cosine" if optim.lr_scheduler_type == "cosine" else "constant",
        "weight_decay": optim.weight_decay,
        "betas": [optim.adam_beta1, optim.adam_beta2],
        "clip_grad": optim.max_grad_norm,
    }
    return {f"{section}.{key}": value for key, value in values.items()}


def _sharding(config: RunConfig, section: str) -> dict[str, Any]:
    values = {
        "param_offload": config.parallel.offload == "all",
        "optimizer_offload": config.parallel.offload != "none",
        "dtype": DTYPES[config.precision.dtype],
        "seed": config.optim.seed,
    }
    return {f"{section}.{key}": value for key, value in values.items()}


def _trainer(config: RunConfig, run_dir: Path, prompts: int, held_out: int) -> dict[str, Any]:
    parallel, output = config.parallel, config.output
    steps = steps_of(config, prompts)
    values = {
        "nnodes": parallel.num_nodes,
        "n_gpus_per_node": parallel.processes_per_node,
        "total_training_steps": steps,
        # The number of steps decides. Prompts that are too long make epochs shorter than we can know.
        "total_epochs": steps,
        "save_freq": output.save_steps,
        "test_freq": (config.eval.eval_steps or steps) if held_out else -1,
        "val_before_train": held_out > 0,
        "resume_mode": "auto",
        "default_local_dir": str(run_dir / "checkpoints"),
        "max_actor_ckpt_to_keep": output.save_total_limit,
        "max_critic_ckpt_to_keep": output.save_total_limit,
        "project_name": config.tracking.project,
        "experiment_name": config.name,
        "logger": ["console", "file", "tensorboard", *(t for t in config.tracking.report_to if t != "tensorboard")],
    }
    named = {f"trainer.{key}": value for key, value in values.items()}
    return {**named, "hydra.run.dir": str(run_dir / "verl" / "hydra"), "hydra.output_subdir": None}
