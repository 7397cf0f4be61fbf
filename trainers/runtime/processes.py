"""Whether the processes of a run work together as planned. Launchers and libraries fall back silently."""

from __future__ import annotations

import os
from typing import Any

from trainers.config import RunConfig
from trainers.errors import InputProblem, RunProblem

_HINT = "start it as job.sh does: torchrun --nnodes ... --nproc_per_node ... -m trainers RUN_DIR/run.yaml"


def check_processes(config: RunConfig) -> None:
    """Raise InputProblem unless the launcher started as many processes, on as many nodes, as were planned."""
    parallel = config.parallel
    # One process drives all of Ray's.
    if config.engine == "verl":
        return
    check_world_size(config, int(os.environ.get("WORLD_SIZE", "1")))
    # The first name is that of torchrun and accelerate, the second that of DeepSpeed's launcher.
    here = os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE")
    if here and int(here) != parallel.processes_per_node:
        nodes = parallel.world_size / int(here)
        raise InputProblem(
            f"{here} processes on this node, so {nodes:g} nodes; run.yaml plans {parallel.processes_per_node} "
            f"on each of {parallel.num_nodes} (parallel.processes_per_node, parallel.num_nodes)",
            hint=_HINT,
        )


def check_world_size(config: RunConfig, found: int) -> None:
    """Raise InputProblem unless as many processes work together as were planned."""
    planned = config.parallel.world_size
    if found != planned:
        raise InputProblem(
            f"{found} processes work together, run.yaml plans {planned} (parallel.world_size)", hint=_HINT
        )


def check_strategy(config: RunConfig, trainer: Any) -> None:
    """Raise TrainerError unless the planned strategy is what the trainer does."""
    check_world_size(config, trainer.args.world_size)
    planned, state = config.parallel.strategy, trainer.accelerator.state
    kind = str(trainer.accelerator.distributed_type.value)
    found = {"NO": "single", "MULTI_GPU": "ddp", "MULTI_CPU": "ddp", "FSDP": "fsdp"}.get(kind, kind)
    if kind == "DEEPSPEED":
        found = f"zero{state.deepspeed_plugin.zero_stage}"
    # One process shares with nobody, however it was started.
    if found != planned and not (planned == "ddp" and config.parallel.world_size == 1):
        raise RunProblem(
            f"strategy {planned} was planned, and {found} is in effect",
            hint="this version of accelerate turned it down",
        )
