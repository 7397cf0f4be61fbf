"""``python -m trainers.doctor.group SECONDS``: one process of the all-reduce that ``communication`` tries."""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import timedelta

import torch
import torch.distributed as dist

COUNT = 16 * 1024**2
"""Floats of the timed all-reduce on GPUs: 64 MiB. A sixteenth of it without."""


def main(patience: float) -> int:
    """Meet the others within so many seconds, add up, and print backend and bandwidth; exit code 1: a wrong sum."""
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    backend = "nccl" if cuda else "gloo"
    dist.init_process_group(backend, timeout=timedelta(seconds=patience))
    mine = torch.tensor([float(rank + 1)], device=device)
    dist.all_reduce(mine)
    if mine.item() != world * (world + 1) / 2:
        print(f"SumError: 1 to {world} add up to {mine.item():.0f}", file=sys.stderr)
        return 1
    bandwidth = _bandwidth(device, COUNT if cuda else COUNT // 16, world)
    dist.destroy_process_group()
    print(json.dumps({"backend": backend, "bandwidth": bandwidth}))
    return 0


def _bandwidth(device: torch.device, count: int, world: int) -> float:
    """Bytes/s over the slowest link, as nccl-tests counts ("bus bandwidth": 2 (n - 1) / n times size over time)."""
    data = torch.ones(count, device=device)
    dist.all_reduce(data)
    _settle(device)
    started = time.monotonic()
    for _ in range(3):
        dist.all_reduce(data)
    _settle(device)
    return 2 * (world - 1) / world * 3 * data.nbytes / (time.monotonic() - started)


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1])))
