"""Numbers of the steps since the last log line: tokens, time, memory, loss and gradient of the last step."""

from __future__ import annotations

import resource
import time

import torch


class Meter:
    """Filled by the trainer while it works, read by the callbacks. Time of evaluation and saving is left out."""

    def __init__(self) -> None:
        self.step_loss: torch.Tensor | float = 0.0
        self.grad_norm: float | None = None
        self.tokens: torch.Tensor | int = 0
        self.all_tokens = 0
        self._seconds = 0.0
        self._steps = 0
        self._mark = time.monotonic()

    def restart_clock(self) -> None:
        """Leave out the time since the last step."""
        self._mark = time.monotonic()

    def step_done(self) -> None:
        """Count a step and its time."""
        now = time.monotonic()
        self._seconds += now - self._mark
        self._steps += 1
        self._mark = now
        self.step_loss = 0.0

    def take(self, tokens: int) -> dict[str, float]:
        """Speed since the last call, given the tokens of all processes in that time; starts over."""
        speed = {
            "tokens_per_second": tokens / max(self._seconds, 1e-9),
            "seconds_per_step": self._seconds / max(self._steps, 1),
            "peak_memory": peak_memory(),
        }
        self.all_tokens += tokens
        self.tokens, self._seconds, self._steps = 0, 0.0, 0
        return speed


def peak_memory() -> int:
    """Bytes: what PyTorch held of its GPU at most, or, without a GPU, the largest resident size of this process."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_reserved()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
