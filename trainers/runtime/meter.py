"""Numbers of the steps since the last log line: rows, tokens, time, memory, use of the GPU, loss and gradient."""

from __future__ import annotations

import resource
import time
from typing import Any

import torch


class Meter:
    """Filled by the trainer while it works, read by the callbacks. Time of evaluation and saving is left out."""

    def __init__(self) -> None:
        self.step_loss: torch.Tensor | float = 0.0
        self.grad_norm: float | None = None
        self.equal_rewards = False
        self.tokens: torch.Tensor | int = 0
        self.rows = 0
        self.all_tokens = 0
        self._seconds = 0.0
        self._steps = 0
        self._mark = time.monotonic()
        self._gpu = _gpu_handle()
        self._busy: list[int] = []
        self._waited = 0.0

    def restart_clock(self) -> None:
        """Leave out the time since the last step."""
        self._mark = time.monotonic()

    def waited(self, seconds: float) -> None:
        """Count time in which this process had no batch to work on."""
        self._waited += seconds

    def step_done(self) -> None:
        """Count a step and its time."""
        now = time.monotonic()
        self._seconds += now - self._mark
        self._steps += 1
        self._mark = now
        self.step_loss = 0.0
        if self._gpu is not None and (busy := _utilization(self._gpu)) is not None:
            self._busy.append(busy)

    def take(self, rows: int, tokens: int) -> dict[str, float]:
        """Speed since the last call, given the rows and tokens of all processes in that time; starts over.

        ``gpu_utilization`` is NVML's, in percent: the share of time in which anything ran on this process's GPU,
        looked at after each step. ``data_wait`` is the share of time in which this process waited for its batches.
        """
        seconds = max(self._seconds, 1e-9)
        speed = {
            "samples_per_second": rows / seconds,
            "tokens_per_second": tokens / seconds,
            "seconds_per_step": self._seconds / max(self._steps, 1),
            "peak_memory": peak_memory(),
            "data_wait": min(self._waited / seconds, 1.0),
        }
        if self._busy:
            speed["gpu_utilization"] = sum(self._busy) / len(self._busy)
        self.all_tokens += tokens
        self.rows, self.tokens, self._seconds, self._steps, self._busy = 0, 0, 0.0, 0, []
        self._waited = 0.0
        return speed


def _gpu_handle() -> Any:
    """NVML's handle of the GPU of this process; None without a GPU or without NVML."""
    if not torch.cuda.is_available():
        return None
    import pynvml

    try:
        pynvml.nvmlInit()
        uuid = torch.cuda.get_device_properties(torch.cuda.current_device()).uuid
        return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    except pynvml.NVMLError:
        return None


def _utilization(handle: Any) -> int | None:
    """In percent; None where NVML does not say, as of a part of a GPU (MIG)."""
    import pynvml

    try:
        return int(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)
    except pynvml.NVMLError:
        return None


def peak_memory() -> int:
    """Bytes: what PyTorch held of its GPU at most, or, without a GPU, the largest resident size of this process."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_reserved()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
