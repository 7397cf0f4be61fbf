"""Tokenizer and model of a run: base weights, number format, and the part that learns."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from trainers.config import Model, RunConfig
from trainers.data.template import use_template_file
from trainers.errors import InputProblem, RunProblem
from trainers.model.paths import adapter_folder, model_source, near_name

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)


def choose_device(config: RunConfig) -> str:
    """``cpu`` or ``cuda``, checked against what was asked for. Raises RunProblem."""
    wanted = config.parallel.device
    visible = torch.cuda.is_available()
    if wanted == "cuda" and not visible:
        raise RunProblem(
            "this run needs a GPU and PyTorch sees none",
            hint="check nvidia-smi and CUDA_VISIBLE_DEVICES, and that PyTorch is a CUDA build that fits the driver",
        )
    device = "cuda" if visible and wanted != "cpu" else "cpu"
    if device == "cuda" and config.parallel.world_size == 1 and torch.cuda.device_count() > 1:
        raise RunProblem(
            f"this run is for one GPU and {torch.cuda.device_count()} are visible",
            hint="set CUDA_VISIBLE_DEVICES to one of them, or take a profile with more processes",
        )
    dtype = config.precision.dtype
    if dtype == "fp16" and device == "cpu":
        raise RunProblem("fp16 training needs a GPU", hint="set precision.dtype to fp32 or bf16")
    if dtype == "bf16" and device == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        name = torch.cuda.get_device_name()
        raise RunProblem(f"{name} has no bf16", hint="set precision.dtype to fp16, or take a card from Ampere on")
    return device


def load_tokenizer(config: Model) -> PreTrainedTokenizerBase:
    """The model's tokenizer, with the template that the run wants. Raises InputProblem."""
    from transformers import AutoTokenizer

    tokenizer = _load(AutoTokenizer, config, "tokenizer")
    if not tokenizer.is_fast:
        raise InputProblem(
            "the model has only a slow tokenizer, which cannot tell where in the text a token comes from",
            hint="use a model with a tokenizer.json",
        )
    if config.chat_template:
        use_template_file(tokenizer, config.chat_template)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(config: RunConfig) -> PreTrainedModel:
    """The model with the weights that learn in place: a new adapter, a continued one, or all. Raises InputProblem.

    Frozen weights of a bf16 run are held in bf16. Weights that learn are fp32 (PEFT keeps adapters so), because
    small updates are lost in bf16; only under DeepSpeed the model is bf16, which has an fp32 copy of its own.
    fp16 runs hold everything in fp32: fp16 weights overflow.
    """
    from transformers import AutoModelForCausalLM

    frozen = config.model.adapter == "lora"
    half = config.precision.dtype == "bf16" and (frozen or config.parallel.strategy == "zero2")
    model = _load(
        AutoModelForCausalLM,
        config.model,
        "model",
        dtype=torch.bfloat16 if half else torch.float32,
        attn_implementation=config.model.attn_implementation,
    )
    if config.model.adapter == "none":
        return model
    if config.model.adapter_name_or_path:
        return _continue_adapter(model, config.model.adapter_name_or_path)
    return _new_adapter(model, config)


def _load(kind: Any, config: Model, what: str, **options: Any) -> Any:
    """``from_pretrained``, with its many ways to fail turned into one line."""
    try:
        return kind.from_pretrained(
            model_source(config),
            revision=config.revision or "main",
            trust_remote_code=config.trust_remote_code,
            **options,
        )
    except ImportError as e:
        raise InputProblem(
            f"{what} of {config.model_name_or_path} needs a package: {str(e).strip().splitlines()[0]}",
            hint="install it, or set model.attn_implementation to sdpa if that is what asks for it",
        ) from e
    except (OSError, ValueError) as e:
        reason = str(e).strip().splitlines()[0]
        raise InputProblem(
            f"{what} of {config.model_name_or_path} cannot be loaded: {reason}",
            hint=f"{near_name(config.model_name_or_path)}where the hub is not reached, set HF_ENDPOINT to a mirror, or "
            "fetch the model before with hf download and name its directory",
        ) from e


def _new_adapter(model: PreTrainedModel, config: RunConfig) -> Any:
    from peft import LoraConfig, get_peft_model
    from transformers import set_seed

    lora = config.model.lora
    targets = lora.target_modules
    # PEFT draws the first weights at random.
    set_seed(config.optim.seed)
    try:
        return get_peft_model(
            model,
            LoraConfig(
                task_type="CAUSAL_LM",
                r=lora.r,
                lora_alpha=lora.lora_alpha,
                lora_dropout=lora.lora_dropout,
                target_modules=targets[0] if targets == ["all-linear"] else list(targets),
            ),
        )
    except ValueError as e:
        raise InputProblem(f"LoRA: {str(e).splitlines()[0]}", hint="check model.lora.target_modules") from e


def _continue_adapter(model: PreTrainedModel, name: str) -> Any:
    """Load an adapter to train on, and prove that every weight of it arrived."""
    from peft import PeftModel

    folder = adapter_folder(name)
    try:
        adapted = PeftModel.from_pretrained(model, str(folder), is_trainable=True)
    except (OSError, ValueError, RuntimeError) as e:
        reason = next((line.strip() for line in str(e).splitlines() if "size mismatch" in line), str(e).splitlines()[0])
        raise InputProblem(
            f"adapter {folder} does not fit {model.config.name_or_path}: {reason}",
            hint="continue an adapter on the base model that it was trained on",
        ) from e
    _check_adapter(adapted, folder)
    return adapted


def _check_adapter(model: Any, folder: Path) -> None:
    # PEFT only warns when weights of the file find no place, and then trains from scratch.
    from peft import get_peft_model_state_dict, load_peft_weights

    here, there = get_peft_model_state_dict(model), load_peft_weights(str(folder), device="cpu")
    odd = set(here) ^ set(there)
    for name in set(here) & set(there):
        if not torch.equal(here[name].cpu(), there[name].to(here[name].dtype)):
            odd.add(name)
    if odd:
        raise InputProblem(
            f"adapter {folder}: {len(odd)} of {len(there)} weights did not arrive in the model, such as {min(odd)}",
            hint="continue an adapter on the base model that it was trained on",
        )
    log.info("continuing the adapter %s: all %d weights are in place", folder, len(there))
