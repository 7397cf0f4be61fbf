"""The device of a run and the number format of its weights, checked against the card and what is installed."""

from __future__ import annotations

import os
from importlib.util import find_spec

import torch

from trainers.config import RunConfig
from trainers.errors import InputProblem, RunProblem


def choose_device(config: RunConfig) -> str:
    """``cpu`` or ``cuda``, checked against everything that was asked for. Raises TrainerError."""
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
        raise RunProblem("fp16 training needs a GPU", hint="set dtype to fp32 or bf16 in the profile")
    if dtype == "bf16" and device == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        name = torch.cuda.get_device_name()
        raise RunProblem(f"{name} has no bf16", hint="set dtype to fp16 in the profile, or take a card from Ampere on")
    _check_kernels(config, device)
    if device == "cuda":
        # bitsandbytes puts quantised weights on the current GPU as soon as they are loaded.
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    return device


def weight_dtype(config: RunConfig) -> torch.dtype:
    """The format in which the base weights are loaded.

    Frozen weights of a bf16 run are held in bf16. Weights that learn are fp32 (PEFT keeps adapters so), because
    small updates are lost in bf16; only under DeepSpeed the model is bf16, which has an fp32 copy of its own.
    fp16 runs hold everything in fp32: fp16 weights overflow.
    """
    frozen = config.model.adapter == "lora"
    half = config.precision.dtype == "bf16" and (frozen or config.parallel.deepspeed)
    return torch.bfloat16 if half else torch.float32


def _check_kernels(config: RunConfig, device: str) -> None:
    """What only some machines have. Raises InputProblem for a package that is missing, RunProblem for a device."""
    model, optim = config.model, config.optim.optim
    needs = {
        f"model.quantization {model.quantization}": ("bitsandbytes", False, model.quantization != "none"),
        f"optim.optim {optim}": ("bitsandbytes", optim.startswith("paged"), optim.endswith(("_8bit", "_32bit"))),
        "model.use_liger_kernel": ("liger_kernel", True, model.use_liger_kernel),
        "model.attn_implementation flash_attention_2": (
            "flash_attn",
            True,
            model.attn_implementation == "flash_attention_2",
        ),
    }
    for what, (package, gpu, wanted) in needs.items():
        if wanted and gpu and device == "cpu":
            raise RunProblem(f"{what} needs a GPU", hint=f"drop {what.split()[0]}, or run it where a GPU is")
        if wanted and find_spec(package) is None:
            name = package.replace("_", "-")
            extra = "'clusterctl[quantization]'" if name == "bitsandbytes" else name
            raise InputProblem(f"{what} needs the package {name}", hint=f"pip install {extra}")
    if config.precision.dtype == "fp32" and model.attn_implementation == "flash_attention_2":
        raise InputProblem(
            "flash_attention_2 computes in bf16 or fp16 alone",
            hint="set dtype to bf16 in the profile, or model.attn_implementation to sdpa",
        )
