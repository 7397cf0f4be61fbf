"""The NVIDIA driver, asked through NVML: what keeps PyTorch from a GPU that is there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from trainers.doctor.check import Asked, Check

_STATES = {
    # nvml.h: NVML_ERROR_*
    9: (
        "the NVIDIA driver is installed, but its kernel module is not loaded",
        "as root: modprobe nvidia; when that fails, `dmesg` says why",
    ),
    18: (
        "the NVIDIA driver was upgraded, and the old one still runs in the kernel",
        "reboot this machine, or ask its administrator to; meanwhile --exclude it",
    ),
}
_NOT_FOUND = 12


def check_driver(asked: Asked) -> Iterator[Check]:
    """Whether the driver is there and works. No driver is a failure only where GPUs were asked for."""
    try:
        import pynvml
    except ImportError:
        yield Check("driver", "unknown", "nvidia-ml-py is not installed", "pip install nvidia-ml-py")
        return
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as e:
        yield _problem(e, asked)
        return
    try:
        yield _healthy(pynvml)
    finally:
        pynvml.nvmlShutdown()


def _problem(error: Any, asked: Asked) -> Check:
    if error.value == _NOT_FOUND:
        if not asked.gpus:
            return Check(
                "driver", "skipped", "no NVIDIA driver is installed here", "none, unless this machine has GPUs"
            )
        return Check(
            "driver",
            "fail",
            "no NVIDIA driver is installed here (libnvidia-ml.so.1 was not found)",
            "ask for a node with GPUs; in a container: the flag --gpus all, or --nv",
        )
    words, remedy = _STATES.get(error.value, (f"the NVIDIA driver does not work: {error}", "`dmesg` says why"))
    return Check("driver", "fail", words, remedy)


def _healthy(pynvml: Any) -> Check:
    version = pynvml.nvmlSystemGetDriverVersion()
    cuda = pynvml.nvmlSystemGetCudaDriverVersion()
    bad = [words for index in range(pynvml.nvmlDeviceGetCount()) if (words := _fault(pynvml, index))]
    evidence = f"{version}, for CUDA up to {cuda // 1000}.{cuda % 1000 // 10}"
    if bad:
        return Check("driver", "fail", f"{evidence}; {'; '.join(bad)}", "clusterctl gpus shows each card's health")
    return Check("driver", "ok", evidence)


def _fault(pynvml: Any, index: int) -> str:
    """Why this card cannot be used; empty when it can, or belongs to others (no permission)."""
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        pynvml.nvmlDeviceGetMemoryInfo(handle)
    except pynvml.NVMLError_NoPermission:
        return ""
    except pynvml.NVMLError as e:
        return f"GPU {index}: {e}"
    return ""
