"""Names that older scripts used, and what they are today: understood in recipes and in ``--set``.

Three families: sbatch scripts with a stage each, a launch script on one GPU server, trainers driven by YAML.
docs/migration.md is the table for people; a test holds it against this one. An old name may stand at the top of
a recipe, in the section where it is today, or in a section that was called so then (``training_args``, ``ppo``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from trainers.errors import InputProblem

Leaves = Mapping[str, Any]
"""Values by dotted key."""


@dataclass(frozen=True)
class Today:
    """What was said, under today's names. ``came_from``: the old name by the new one; ``notes`` for the user."""

    values: dict[str, Any] = field(default_factory=dict)
    came_from: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


MOVED: dict[str, str] = {
    # which model, and what of it learns
    "model_dir": "model.model_name_or_path",
    "model_name": "model.model_name_or_path",
    "model_name_or_path": "model.model_name_or_path",
    "reward_model_name_or_path": "method.reward_model",
    "lora_r": "model.lora.r",
    "lora_alpha": "model.lora.lora_alpha",
    "lora_dropout": "model.lora.lora_dropout",
    "target_modules": "model.lora.target_modules",
    "no_rope_layers": "model.rope_free_layers",
    "rope_theta": "model.rope_theta",
    "gradient_checkpointing": "model.gradient_checkpointing",
    # data
    "train_file": "data.train_files",
    "dataset_name": "data.train_files",
    "eval_file": "data.eval_files",
    "text_column": "data.text_fields",
    "text_fields": "data.text_fields",
    "max_seq_len": "data.max_length",
    "max_seq_length": "data.max_length",
    "stage1_max_seq_len": "data.max_length",
    "max_length": "data.max_length",
    "block_size": "data.max_length",
    "cutoff_len": "data.max_length",
    "max_train_samples": "data.max_train_samples",
    "max_samples": "data.max_train_samples",
    "dataset_size": "data.max_train_samples",
    # optimiser
    "learning_rate": "optim.learning_rate",
    "actor_lr": "optim.learning_rate",
    "lr_scheduler_type": "optim.lr_scheduler_type",
    "warmup_steps": "optim.warmup_steps",
    "warmup_ratio": "optim.warmup_steps",
    "weight_decay": "optim.weight_decay",
    "max_grad_norm": "optim.max_grad_norm",
    "num_train_epochs": "optim.num_train_epochs",
    "max_steps": "optim.max_steps",
    "batch_size": "optim.per_device_train_batch_size",
    "per_device_train_batch_size": "optim.per_device_train_batch_size",
    "per_device_eval_batch_size": "optim.per_device_eval_batch_size",
    "gradient_accumulation_steps": "optim.gradient_accumulation_steps",
    "dataloader_num_workers": "optim.dataloader_num_workers",
    "seed": "optim.seed",
    "training_args.optim": "optim.optim",
    # preferences and rollouts
    "beta": "method.beta",
    "loss_type": "method.loss_type",
    "rollout_n": "method.num_generations",
    "max_response_length": "method.max_completion_length",
    "max_prompt_length": "method.verl.max_prompt_length",
    "ppo_micro_batch_size_per_gpu": "optim.per_device_train_batch_size",
    # trackers, files
    "trace": "tracking.report_to",
    "report_to": "tracking.report_to",
    "project": "tracking.project",
    "workspace": "tracking.swanlab_workspace",
    "entity": "tracking.wandb_entity",
    "swanlab.mode": "tracking.swanlab_mode",
    "wandb.mode": "tracking.wandb_mode",
    "logging_steps": "output.logging_steps",
    "save_steps": "output.save_steps",
    "save_total_limit": "output.save_total_limit",
    "experiment_name": "name",
    "ddp_timeout": "parallel.ddp_timeout",
    "nnodes": "profile.nodes",
    "n_gpus_per_node": "profile.gpus_per_node",
}
"""The same value under another name."""


def _switch(on: dict[str, Any]) -> Callable[[Any, Leaves], dict[str, Any]]:
    """``true`` says ``on``; ``false`` was the default and says nothing."""
    return lambda value, said: dict(on) if _truth(value) else {}


def _truth(value: Any) -> bool:
    return str(value).lower() in ("true", "1", "yes", "on")


def _heard(said: Leaves, name: str) -> Any:
    """The value of a name that may stand in any section."""
    return next((value for key, value in said.items() if key.rpartition(".")[2] == name), None)


def _cloud_swanlab(value: Any, said: Leaves) -> dict[str, Any]:
    # Both switches together meant the local mode.
    if not _truth(value) or _truth(_heard(said, "use_local_swanlab")):
        return {}
    return {"tracking.report_to": "swanlab", "tracking.swanlab_mode": "cloud"}


def _trackers(value: Any, said: Leaves) -> dict[str, Any]:
    names = value if isinstance(value, list) else [value]
    return {"tracking.report_to": [name for name in names if name != "console"]}


def _template(value: Any, said: Leaves) -> dict[str, Any]:
    from trainers.templates import SHIPPED

    stem = PurePath(str(value)).stem
    return {"model.chat_template": stem if stem in SHIPPED else value}


def _tokenizer(value: Any, said: Leaves) -> dict[str, Any]:
    names = ("model_name_or_path", "model_dir", "model.model_name_or_path")
    if value not in [said[name] for name in names if name in said]:
        raise InputProblem(
            f"tokenizer_name_or_path {value}: the tokenizer is the model's own",
            hint="save the tokenizer into the model's directory, then drop this key",
        )
    return {}


def _share(value: Any, said: Leaves) -> dict[str, Any]:
    percent = isinstance(value, (int, float)) and value >= 1
    return {"data.validation_split": value / 100 if percent else value}


def _rollout(value: Any, said: Leaves) -> dict[str, Any]:
    if said.get("engine", "verl" if said.get("stage") == "ppo" else "trl") == "verl":
        return {"method.verl.rollout": value}
    return {"method.use_vllm": value == "vllm"}


def _kl(value: Any, said: Leaves) -> dict[str, Any]:
    switch = _heard(said, "use_kl_loss")
    off = switch is not None and not _truth(switch)
    return {"method.kl_coef" if said.get("stage") == "ppo" else "method.beta": 0.0 if off else value}


def _use_kl(value: Any, said: Leaves) -> dict[str, Any]:
    # 0.001 was the weight of those who gave none.
    return {} if _heard(said, "kl_loss_coef") is not None else _kl(0.001, said)


def _gpu_type(value: Any, said: Leaves) -> dict[str, Any]:
    return {} if value in (None, "auto") else {"profile.gpu_type": str(value).lower()}


def _stage(value: Any, said: Leaves) -> dict[str, Any]:
    return {"stage": STAGE_VALUES.get(str(value), value)}


STAGE_VALUES = {"1": "stage1", "2": "stage2", "basic": "sft", "pretrain": "cpt", "finetune": "sft"}
"""What ``stage`` said, and says today."""

CHANGED: dict[str, tuple[str, Callable[[Any, Leaves], dict[str, Any]]]] = {
    "stage": ("stage", _stage),
    "use_swanlab": ("tracking.report_to=swanlab", _cloud_swanlab),
    "use_local_swanlab": (
        "tracking.report_to=swanlab",
        _switch({"tracking.report_to": "swanlab", "tracking.swanlab_mode": "local"}),
    ),
    "use_wandb": ("tracking.report_to=wandb", _switch({"tracking.report_to": "wandb"})),
    "logger": ("tracking.report_to", _trackers),
    "use_bf16": ("profile.dtype=bf16", _switch({"profile.dtype": "bf16"})),
    "bf16": ("profile.dtype=bf16", _switch({"profile.dtype": "bf16"})),
    "fp16": ("profile.dtype=fp16", _switch({"profile.dtype": "fp16"})),
    "peft.enabled": ("model.adapter", lambda value, said: {"model.adapter": "lora" if _truth(value) else "none"}),
    "peft.qlora": ("model.quantization=4bit", _switch({"model.quantization": "4bit"})),
    "load_in_8bit": ("model.quantization=8bit", _switch({"model.quantization": "8bit"})),
    "template_path": ("model.chat_template", _template),
    "tokenizer_name_or_path": ("model.model_name_or_path", _tokenizer),
    "validation_split_percentage": ("data.validation_split", _share),
    "rollout_backend": ("method.verl.rollout", _rollout),
    "kl_loss_coef": ("method.beta", _kl),
    "use_kl_loss": ("method.beta", _use_kl),
    "gpu_type": ("profile.gpu_type", _gpu_type),
}
"""What it is today in words, and how the value is turned into today's keys, given all that was said."""

DROPPED: dict[str, str] = {
    "output_dir": "every run has a directory of its own below `output_root` of the site file",
    "base_output_dir": "every run has a directory of its own below `output_root` of the site file",
    "cache_dir": "the hub's cache is `hugging_face.home` of the site file",
    "do_train": "a run trains",
    "preprocessing_num_workers": "rows are tokenised once and kept",
}
"""Names that need no counterpart, and why."""

REFUSED: dict[str, str] = {
    "deepspeed": "take a profile with strategy zero1, zero2 or zero3: DeepSpeed's file is written from it",
    "ppo_mini_batch_size": "a step takes optim.train_batch_size answers in all: set that",
    "gpu_ids": "say --gpu-ids 0,1,4,5 on the command line; with Slurm it chooses the cards",
}
"""Names that cannot be understood, and what to do instead."""

OLD_SECTIONS = ("training_args", "peft", "ppo", "dpo", "swanlab", "wandb")
_TODAYS_SECTIONS = ("model", "data", "method", "optim", "parallel", "tracking", "output")
_SECRET = re.compile(r"(^|_)(api_?key|token|password|secret)$", re.IGNORECASE)


def translate(said: Leaves, where: Callable[[str], str]) -> Today:
    """Today's names for everything in ``said``. ``where`` locates a key for messages. A key of today is its own name.

    Raises InputProblem for a key that carries a secret, one that has no counterpart, and for two keys that say the
    same thing. Unknown keys pass: whoever validates has the words for them.
    """
    today = Today()
    for key, value in said.items():
        name = _old_name(key)
        if name is None:
            _put(today, key, value, key, where)
        elif _SECRET.search(name):
            raise InputProblem(
                f"{where(key)}: {key} would store a secret in a file or on the command line",
                hint="export it as SWANLAB_API_KEY, WANDB_API_KEY or HF_TOKEN, or write it into the file of `secrets` "
                "in the site file",
            )
        elif name in REFUSED:
            raise InputProblem(f"{where(key)}: {key} cannot be said here", hint=REFUSED[name])
        elif name in DROPPED:
            today.notes.append(f"{where(key)}: {key} is not used: {DROPPED[name]}")
        else:
            _say(today, key, name, value, said, where)
    return today


def todays_name(key: str) -> str | None:
    """What an old name is today, in words; None where the key is no old name that has a counterpart."""
    name = _old_name(key)
    return MOVED.get(name or "") or CHANGED.get(name or "", ("",))[0] or None


def _say(today: Today, key: str, name: str, value: Any, said: Leaves, where: Callable[[str], str]) -> None:
    new = {MOVED[name]: value} if name in MOVED else CHANGED[name][1](value, said)
    if new == {key: value}:
        _put(today, key, value, key, where)
        return
    for one, its_value in new.items():
        _put(today, one, its_value, key, where)
    if name in MOVED:
        words = f"is {MOVED[name]} today"
    elif new:
        words = f"{_shown(value)} is {', '.join(f'{one} {_shown(text)}' for one, text in new.items())} today"
    else:
        words = f"{_shown(value)} says nothing that is not so anyway"
    today.notes.append(f"{where(key)}: {key} {words}")


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _put(today: Today, new: str, value: Any, old: str, where: Callable[[str], str]) -> None:
    before = today.came_from.get(new)
    if before is not None:
        raise InputProblem(
            f"{where(before)}: {before} and {old} ({where(old)}) say the same thing", hint=f"keep one of them: {new}"
        )
    today.values[new] = value
    today.came_from[new] = old


def _old_name(key: str) -> str | None:
    """The entry of the tables for a key as it was written; None where it is none of them."""
    section, _, leaf = key.rpartition(".")
    if _SECRET.search(leaf) and section != "data.columns":
        return leaf
    for name in (key, leaf.lower()):
        if name not in MOVED and name not in CHANGED and name not in DROPPED and name not in REFUSED:
            continue
        if name == key or not section or section in OLD_SECTIONS:
            return name
        # Within a section of today only what stands there today.
        target = MOVED.get(name) or CHANGED.get(name, ("",))[0]
        if section in _TODAYS_SECTIONS and target.startswith(f"{section}."):
            return name
    return None
