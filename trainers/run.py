"""One attempt of a run, from its configuration to its end. Knows no stage but by name."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainers.config import RunConfig
from trainers.data.examples import load_examples
from trainers.errors import InputProblem
from trainers.guard import SAVED
from trainers.model.paths import check_paths
from trainers.runtime import checkpoints
from trainers.runtime.progress import Progress
from trainers.runtime.records import draw_curves, write_command, write_environment
from trainers.runtime.stopping import Stop

if TYPE_CHECKING:
    from trainers.stages.prepared import Prepared

log = logging.getLogger(__name__)

_MODULES = {"stage1": "staged", "stage2": "staged"}
"""Stages that share a file with another; all others have one of their own name."""


@dataclass(frozen=True)
class Run:
    """Where this attempt lives and how it talks to the outside."""

    folder: Path
    attempt: int
    progress: Progress
    stop: Stop


def execute(config: RunConfig, run: Run) -> int:
    """Train as configured. Returns the exit code: 0 finished, 85 saved to be continued. Raises TrainerError."""
    # Before the seconds that the libraries take: most mistakes are in paths and data.
    check_paths(config.model)
    examples = load_examples(config)
    from trainers.runtime.log import adopt_transformers

    adopt_transformers()
    from trainers.model.load import choose_device
    from trainers.runtime.arguments import shared_arguments
    from trainers.runtime.deepspeed import write_config

    stage = import_module(f"trainers.stages.{_MODULES.get(config.stage, config.stage)}")
    device = choose_device(config)
    run.progress.update(device=device)
    # Where DeepSpeed is installed, accelerate imports it in every run, and it says at length that it found no GPU.
    os.environ.setdefault("DS_ACCELERATOR", device)
    arguments = shared_arguments(config, run.folder, device)
    arguments["deepspeed"] = write_config(config, run.folder, device)
    prepared: Prepared = stage.prepare(config, run, arguments, examples)
    check_world_size(config, prepared.trainer.args.world_size)
    code = _train_and_finish(config, run, prepared)
    # A launcher ends all processes as soon as one has ended with 85: the first has to be done by then.
    prepared.trainer.accelerator.wait_for_everyone()
    prepared.trainer.end()
    return code


def _train_and_finish(config: RunConfig, run: Run, prepared: Prepared) -> int:
    from trainers.runtime.callbacks import Reporter, StopAtStep, Tripwires
    from trainers.runtime.meter import Meter
    from trainers.runtime.summary import write_summary
    from trainers.runtime.tracking import Tracking

    trainer = prepared.trainer
    meter, stopper, tracking = Meter(), StopAtStep(run.stop), Tracking()
    reporter = Reporter(run.folder, run.attempt, run.progress, meter)
    trainer.attach(run.folder, meter, run.stop, config.output.save_total_limit)
    for callback in (*prepared.callbacks, prepared.held_out, Tripwires(meter), stopper, reporter, tracking):
        trainer.add_callback(callback)
    first = trainer.is_world_process_zero()
    if first:
        write_command(run.folder, config)
        write_environment(run.folder, trainer.args.world_size)
        tracking.start(config, run.folder)
    try:
        seconds = _train(trainer, run.folder)
        if stopper.saved:
            run.progress.update(phase="saved")
            return SAVED
        # The model first: what follows can be had again from it.
        run.progress.update(phase="saving")
        trainer.save_final()
        prepared.held_out.after()
    finally:
        tracking.close()
    if first:
        write_summary(run.folder, trainer, prepared.rows, seconds)
        draw_curves(run.folder)
    run.progress.update(phase="finished")
    return 0


def check_world_size(config: RunConfig, found: int) -> None:
    """Raise InputProblem unless as many processes work together as were planned."""
    planned = config.parallel.world_size
    if found != planned:
        raise InputProblem(
            f"{found} processes work together, run.yaml plans {planned} (parallel.world_size)",
            hint="start it as job.sh does: torchrun --nproc_per_node ... -m trainers RUN_DIR/run.yaml",
        )


def _train(trainer: Any, run_dir: Path) -> float:
    """Train from the newest complete checkpoint on; where that is the last step, only load it.

    Returns the seconds of the training loop, with evaluation and saving in it.
    """
    found = checkpoints.complete(run_dir)
    step, checkpoint = found[-1] if found else (0, None)
    if checkpoint:
        state = checkpoint / "trainer_state.json"
        if step >= json.loads(state.read_text(encoding="utf-8"))["max_steps"]:
            log.info("%s is the last step: nothing is left to train", checkpoint.name)
            trainer._load_from_checkpoint(str(checkpoint))
            trainer.model.to(trainer.args.device)
            trainer.state = trainer.state.load_from_json(str(state))
            return 0.0
        log.info("resuming from %s", checkpoint.name)
    done = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return float(done.metrics["train_runtime"])
