"""PyTorch and what stands on it: imported for real, and tried on each visible GPU."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from typing import Any

from trainers.doctor.check import Asked, Check, State

PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")
"""Without these nothing trains. Their oldest versions are those of the extra ``train`` of the installed package."""

_SKIPPED = "PyTorch is not there to be asked"


def check_packages(asked: Asked) -> Iterator[Check]:
    """Import what every run imports, and what was asked for besides; say versions."""
    oldest, good = _oldest(), []
    for name in (*PACKAGES, *asked.needs):
        if find_spec(name) is None:
            remedy = _install(name)
            yield Check(f"package {name}", "fail", f"{name} is not installed in this environment", remedy)
            continue
        version = _version(name)
        try:
            importlib.import_module(name)
        # A package built for another one can raise anything.
        except Exception as e:  # noqa: BLE001
            said = (str(e).strip().splitlines() or [""])[-1][:200]
            evidence = f"{name} {version} cannot be imported: {type(e).__name__}: {said}"
            yield Check(f"package {name}", "fail", evidence, f"install it anew: {_install(name)}")
            continue
        if name in oldest and _numbers(version) < _numbers(oldest[name]):
            evidence = f"{name} {version} is older than {oldest[name]}"
            yield Check(f"package {name}", "fail", evidence, f"pip install -U '{name}>={oldest[name]}'")
        else:
            good.append(f"{name} {version}")
    if good:
        yield Check("packages", "ok", ", ".join(good))


def _install(name: str) -> str:
    extra = {"deepspeed": "train,deepspeed", "wandb": "train,wandb", "bitsandbytes": "train,quantization"}
    return f"pip install 'clusterctl[{extra.get(name, 'train')}]'"


def _version(name: str) -> str:
    try:
        return metadata.version(name.replace("_", "-"))
    except metadata.PackageNotFoundError:
        return "of unknown version"


def _oldest() -> dict[str, str]:
    """The versions that clusterctl asks for, from its own metadata; nothing where it is no installed package."""
    try:
        lines = metadata.requires("clusterctl") or []
    except metadata.PackageNotFoundError:
        return {}
    found = (re.match(r"([A-Za-z0-9_-]+)\s*[=>]=\s*([0-9.]+)", line) for line in lines)
    return {match[1].lower().replace("-", "_"): match[2] for match in found if match}


def _numbers(version: str) -> tuple[int, ...]:
    """``2.13.0+cpu`` as (2, 13, 0): enough to compare releases."""
    return tuple(int(word) for word in re.findall(r"\d+", version.partition("+")[0])[:3])


def _torch() -> Any:
    """PyTorch, or None where ``check_packages`` has said why not."""
    try:
        import torch
    except Exception:  # noqa: BLE001 - as above
        return None
    return torch


def check_cuda(asked: Asked) -> Iterator[Check]:
    """The CUDA that PyTorch was built for, against the driver's."""
    torch = _torch()
    if torch is None:
        yield Check("CUDA", "skipped", _SKIPPED, "install PyTorch first")
        return
    built, driver = torch.version.cuda, _driver_cuda()
    words = f"PyTorch {torch.__version__}"
    if built is None and not torch.version.hip:
        if asked.gpus or driver:
            remedy = "install the CUDA build of PyTorch: https://pytorch.org/get-started/locally"
            yield Check("CUDA", "fail", f"{words} is a build for CPUs only, and cannot use any GPU", remedy)
        else:
            yield Check("CUDA", "skipped", f"{words} is a build for CPUs", "none, where no GPU is")
        return
    if driver and built and int(built.split(".")[0]) > driver[0]:
        # Within one major version any driver of it will do (CUDA compatibility guide, minor version compatibility).
        evidence = f"{words} was built for CUDA {built}, the driver knows CUDA up to {driver[0]}.{driver[1]}"
        remedy = f"install a PyTorch for CUDA {driver[0]}, or ask the administrator for a newer driver"
        yield Check("CUDA", "fail", evidence, remedy)
    elif torch.cuda.is_available():
        yield Check("CUDA", "ok", f"{words} for CUDA {built}")
    else:
        state: State = "fail" if asked.gpus else "skipped"
        remedy = "look at the checks `driver` and `GPUs`, and at CUDA_VISIBLE_DEVICES"
        yield Check("CUDA", state, f"{words} for CUDA {built} sees no GPU", remedy)


def _driver_cuda() -> tuple[int, int] | None:
    """The newest CUDA of the driver; None without one."""
    try:
        import pynvml

        pynvml.nvmlInit()
        try:
            version = pynvml.nvmlSystemGetCudaDriverVersion()
        finally:
            pynvml.nvmlShutdown()
    except Exception:  # noqa: BLE001 - check_driver says what is wrong with it
        return None
    return version // 1000, version % 1000 // 10


def check_gpus(asked: Asked) -> Iterator[Check]:
    """The GPUs that PyTorch sees, against what was asked for; each multiplies two matrices in the job's precision."""
    torch = _torch()
    count = torch.cuda.device_count() if torch is not None else 0
    if torch is None or not (asked.gpus or count):
        words = _SKIPPED if torch is None else "none asked for, none here"
        yield Check("GPUs", "skipped", words, "--on PROFILE tries a node with GPUs")
        return
    if asked.gpus and count < asked.gpus:
        words = f"{asked.gpus} asked for, PyTorch sees {count or 'none'}"
        remedy = "look at the checks `driver` and `CUDA`, and whether the site sets CUDA_VISIBLE_DEVICES"
        yield Check("GPUs", "fail", words, remedy)
        return
    names = [torch.cuda.get_device_name(i) for i in range(count)]
    yield Check("GPUs", "ok", f"{count}: {', '.join(dict.fromkeys(names))}")
    half = [torch.cuda.get_device_capability(i) >= (8, 0) for i in range(count)]
    if not all(half) and asked.dtype == "bf16":
        remedy = "use a profile for these cards (dtype fp16), or `--set profile.dtype=fp16`"
        yield Check("bf16", "fail", f"{names[half.index(False)]} has no bf16 (it needs compute capability 8.0)", remedy)
        return
    kind = torch.bfloat16 if all(half) else torch.float16
    for index in range(count):
        try:
            ones = torch.ones(256, 256, device=f"cuda:{index}", dtype=kind)
            right = bool(((ones @ ones) == 256).all())
        except RuntimeError as e:  # no memory left, or an error of the card
            said = str(e).strip().splitlines()[0][:200]
            state: State = "fail" if asked.gpus else "unknown"
            yield Check("bf16", state, f"GPU {index} does not compute: {said}", "clusterctl gpus shows who does there")
            return
        if not right:
            remedy = "the card computes wrongly: leave the node out and tell its administrator"
            yield Check("bf16", "fail", f"GPU {index} multiplies two matrices of ones wrongly", remedy)
            return
    yield Check("bf16", "ok", f"{'bf16' if all(half) else 'fp16'} products are right on each GPU")


def check_flash_attention(asked: Asked) -> Iterator[Check]:
    """flash-attn imported and run on the first GPU. Runs use PyTorch's own attention unless a recipe asks for it."""
    torch = _torch()
    if find_spec("flash_attn") is None:
        yield Check(
            "flash attention",
            "skipped",
            "flash-attn is not installed: runs use sdpa",
            "pip install flash-attn, if a recipe asks for it",
        )
        return
    try:
        from flash_attn import flash_attn_func
    except Exception as e:  # noqa: BLE001 - a wheel for another PyTorch can raise anything
        said = (str(e).strip().splitlines() or [""])[-1][:200]
        remedy = "pip uninstall flash-attn, or install a wheel for this PyTorch and CUDA"
        yield Check("flash attention", "fail", f"flash-attn cannot be imported: {type(e).__name__}: {said}", remedy)
        return
    if torch is None or not torch.cuda.is_available():
        yield Check("flash attention", "skipped", "flash-attn is installed, but needs a GPU", "try it on a GPU node")
        return
    try:
        q = torch.randn(1, 64, 4, 64, device="cuda", dtype=torch.float16)
        wrong = (flash_attn_func(q, q, q) - _attention(torch, q)).abs().max().item()
    except Exception as e:  # noqa: BLE001 - errors of CUDA kernels have no common class
        said = (str(e).strip().splitlines() or [""])[0][:200]
        remedy = "set model.attn_implementation to sdpa, or install a wheel for this card"
        yield Check("flash attention", "fail", f"flash-attn does not run: {said}", remedy)
        return
    if wrong < 1e-2:
        yield Check("flash attention", "ok", f"flash-attn {_version('flash_attn')} agrees with sdpa")
    else:
        remedy = "set model.attn_implementation to sdpa, and install another flash-attn"
        yield Check("flash attention", "fail", f"flash-attn differs from sdpa by {wrong:.3g}", remedy)


def _attention(torch: Any, q: Any) -> Any:
    """PyTorch's attention on (batch, tokens, heads, size), as flash-attn lays them out."""
    heads = q.transpose(1, 2)
    return torch.nn.functional.scaled_dot_product_attention(heads, heads, heads).transpose(1, 2)


CHECKS = (check_packages, check_cuda, check_gpus, check_flash_attention)
