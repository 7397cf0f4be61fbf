"""Being asked to stop: SIGUSR1, SIGTERM, or a file named ``stop`` in the run directory.

A launcher such as torchrun keeps signals from its workers, so the first process also looks for the file.
All processes have to stop at the same step; ``agreed`` makes them agree.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import FrameType


class Stop:
    """Remembers that somebody asked this run to save and stop."""

    def __init__(self, run_dir: Path) -> None:
        self._file = run_dir / "stop"
        self._first = os.environ.get("RANK", "0") == "0"
        self._signalled = False

    def listen(self) -> None:
        """Take over both signals. Early: until then they kill, or wait (``trainers.launch``)."""
        for number in (signal.SIGUSR1, signal.SIGTERM):
            signal.signal(number, self._note)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGUSR1, signal.SIGTERM))

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signalled = True

    def requested(self) -> bool:
        """Whether this process knows of a request."""
        return self._signalled or (self._first and self._file.exists())

    def agreed(self) -> bool:
        """Whether any process knows of a request. Collective: every process has to call it."""
        import torch
        import torch.distributed as dist

        if not (dist.is_initialized() and dist.get_world_size() > 1):
            return self.requested()
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        flag = torch.tensor(int(self.requested()), device=device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag.item())
