"""A real all-reduce between all processes that the job would have: NCCL between GPUs, gloo without."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec

from trainers.doctor.check import Asked, Check

IMPORTING = 60.0
"""Seconds until PyTorch is imported, beyond which a process is ended that has not met the others in time."""

_REMEDY = (
    "NCCL_DEBUG=INFO in `env` of clusterctl.yaml shows where it stops; several networks: NCCL_SOCKET_IFNAME names one;"
    " between two cards: try NCCL_P2P_DISABLE=1"
)


def check_communication(asked: Asked) -> Iterator[Check]:
    """Start this node's processes, let them meet those of the other nodes, and add up a number of each."""
    world = asked.nodes * asked.processes
    if world < 2:
        yield Check("communication", "skipped", "one process has nobody to talk to", "none, for one process")
        return
    if find_spec("torch") is None:
        yield Check("communication", "skipped", "PyTorch is not there", "install PyTorch first")
        return
    if asked.gpus and _gpus() < asked.gpus:
        yield Check("communication", "skipped", "there are fewer GPUs than processes", "mend the check `GPUs` first")
        return
    if asked.nodes == 1:
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(_free_port()))
    node = int(os.environ.get("SLURM_NODEID") or 0)
    started, deadline = time.monotonic(), time.monotonic() + IMPORTING + asked.patience
    here = asked.processes
    workers = [_worker(node * here + local, local, world, here, asked.patience) for local in range(here)]
    answers = [_answer(worker, deadline) for worker in workers]
    took = time.monotonic() - started
    if bad := [problem for _, problem in answers if problem]:
        words = max(bad, key=lambda words: words != _SILENT)
        yield Check("communication", "fail", f"{len(bad)} of {len(answers)} processes here: {words}", _REMEDY)
        return
    said = answers[0][0]
    speed = f", {said['bandwidth'] / 1e9:.1f} GB/s" if said.get("bandwidth") else ""
    where = f" on {asked.nodes} nodes" if asked.nodes > 1 else ""
    evidence = f"{said['backend']}: all-reduce of {world} processes{where}{speed} ({took:.0f} s)"
    yield Check("communication", "ok", evidence)


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


_SILENT = "did not meet the others in time"


def _worker(rank: int, local: int, world: int, here: int, patience: float) -> subprocess.Popen[str]:
    numbers = {"RANK": rank, "LOCAL_RANK": local, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": here}
    return subprocess.Popen(
        [sys.executable, "-m", "trainers.doctor.group", str(patience)],
        env={**os.environ, **{name: str(value) for name, value in numbers.items()}},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )


def _answer(worker: subprocess.Popen[str], deadline: float) -> tuple[dict[str, object], str]:
    """What a process said, or why it did not."""
    try:
        out, err = worker.communicate(timeout=max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.communicate()
        return {}, _SILENT
    try:
        return dict(json.loads(out.splitlines()[-1])), ""
    except (IndexError, ValueError):
        lines = [line for line in err.splitlines() if "Error" in line] or err.splitlines() or ["no word"]
        return {}, f"ended with exit code {worker.returncode}: {lines[-1].strip()[:200]}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
