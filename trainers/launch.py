"""A launcher that does not end the trainers when the job is asked to stop.

    python -m trainers.launch -m torch.distributed.run ...                      any launcher, by its module
    python -m trainers.launch --nnodes=N --nproc-per-node=P RUN_DIR/run.yaml    DeepSpeed's, on this node

Slurm sends TERM to every process of a step. The trainers save at the next step; torchrun, accelerate and DeepSpeed
would kill them after 30 s, saved or not. So launchers start with these signals blocked. What they start inherits
that, and the trainer lets in what it understands (trainers.runtime.stopping).

The second form starts what the command ``deepspeed`` starts on each node, but without ssh and host file (``job.sh``
is on every node already), with the GPUs of this job and no others, and on a free port. On several nodes MASTER_ADDR
and MASTER_PORT say where the first one listens. Standard library only.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import signal
import socket
import sys
from importlib.util import find_spec


def main(arguments: list[str]) -> int:
    """Become the launcher. Comes back, with an exit code, only when that cannot be."""
    if arguments[:1] != ["-m"]:
        parser = argparse.ArgumentParser(prog="python -m trainers.launch")
        parser.add_argument("--nnodes", type=int, default=1)
        parser.add_argument("--nproc-per-node", type=int, default=1)
        parser.add_argument("--node-rank", type=int, default=0)
        parser.add_argument("run")
        asked = parser.parse_args(arguments)
        gpus = visible_gpus(os.environ.get("CUDA_VISIBLE_DEVICES"), asked.nproc_per_node)
        if gpus is None:
            return _problem(
                f"{asked.nproc_per_node} processes are planned, CUDA_VISIBLE_DEVICES names fewer GPUs",
                "ask for as many GPUs as processes",
            )
        if not find_spec("deepspeed"):
            return _problem("launcher deepspeed needs DeepSpeed", "pip install 'clusterctl[deepspeed]'")
        arguments = _deepspeed(asked, gpus)
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1))
    return os.execv(sys.executable, [sys.executable, *arguments])  # noqa: S606 - no shell is the point


def _deepspeed(asked: argparse.Namespace, gpus: list[str]) -> list[str]:
    world = json.dumps({str(node): gpus for node in range(asked.nnodes)})
    return [
        *("-m", "deepspeed.launcher.launch", "--quiet", "--module", "--no_local_rank"),
        f"--world_info={base64.urlsafe_b64encode(world.encode()).decode()}",
        f"--node_rank={asked.node_rank}",
        f"--master_addr={os.environ.get('MASTER_ADDR') or '127.0.0.1'}",
        f"--master_port={os.environ.get('MASTER_PORT') or _free_port()}",
        *("trainers", asked.run),
    ]


def visible_gpus(named: str | None, processes: int) -> list[str] | None:
    """The GPU of each process of this node, as CUDA_VISIBLE_DEVICES names them: numbers or UUIDs. None: too few.

    DeepSpeed's launcher takes 0, 1, ... otherwise, which may be somebody else's.
    """
    if named is None:
        return [str(number) for number in range(processes)]
    gpus = named.split(",") if named else ["-1"] * processes  # hidden GPUs stay hidden
    return gpus[:processes] if len(gpus) >= processes else None


def _free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _problem(message: str, hint: str) -> int:
    print(f"error: {message}\nhint: {hint}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
