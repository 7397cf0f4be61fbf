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
from trainers.guard import SAVED
from trainers.model.fit import check_fit, read_config
from trainers.model.paths import check_paths
from trainers.runtime import checkpoints
from trainers.runtime.progress import Progress
from trainers.runtime.records import draw_curves, write_command, write_environment
from trainers.runtime.stopping import Stop

if TYPE_CHECKING:
    from trainers.runtime.best import Best
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
    check_fit(config, read_config(config.model))
    examples = load_examples(config)
    if config.engine == "verl":
        from trainers.verl.run import execute as with_verl

        return with_verl(config, run, examples)
    from trainers.runtime.log import adopt_transformers

    adopt_transformers()
    from trainers.model.device import choose_device
    from trainers.runtime import deepspeed, fsdp
    from trainers.runtime.arguments import shared_arguments
    from trainers.runtime.processes import check_strategy

    stage = import_module(f"trainers.stages.{_MODULES.get(config.stage, config.stage)}")
    device = choose_device(config)
    run.progress.update(device=device)
    # Where DeepSpeed is installed, accelerate imports it in every run, and it says at length that it found no GPU.
    os.environ.setdefault("DS_ACCELERATOR", device)
    arguments = shared_arguments(config, run.folder, device)
    # Before any model is loaded: under ZeRO-3 a process loads only its share.
    arguments["deepspeed"] = deepspeed.start(config, run.folder, device)
    arguments |= fsdp.start(config, run.folder, device)
    prepared: Prepared = stage.prepare(config, run, arguments, examples)
    if examples.skipped.bad:
        prepared.rows.setdefault("left_out", examples.skipped.bad)
    check_strategy(config, prepared.trainer)
    code = _train_and_finish(config, run, prepared)
    # A launcher ends all processes as soon as one has ended with 85: the first has to be done by then.
    prepared.trainer.accelerator.wait_for_everyone()
    prepared.trainer.end()
    return code


def _train_and_finish(config: RunConfig, run: Run, prepared: Prepared) -> int:
    from trainers.runtime.best import Best
    from trainers.runtime.callbacks import Reporter, StopAtStep, Tripwires
    from trainers.runtime.card import data_fingerprint, write_card
    from trainers.runtime.machines import all_machines
    from trainers.runtime.meter import Meter
    from trainers.runtime.summary import write_summary
    from trainers.runtime.tracking import Tracking

    trainer = prepared.trainer
    meter, stopper, tracking, best = Meter(), StopAtStep(run.stop), Tracking(), Best(config.eval, run.folder)
    reporter = Reporter(run.folder, run.attempt, run.progress, meter)
    trainer.attach(run.folder, meter, run.stop, config.output.save_total_limit, best)
    for callback in (*prepared.callbacks, best, prepared.held_out, Tripwires(meter), stopper, reporter, tracking):
        trainer.add_callback(callback)
    first = trainer.is_world_process_zero()
    machines = all_machines()
    if first:
        write_command(run.folder, config)
        write_environment(run.folder, trainer.args.world_size, machines)
        data = data_fingerprint(config)
        tracking.start(config, run.folder)
    if steps := trainer.count_steps():
        log.info("%s", steps.words())
    try:
        seconds = _train(trainer, run.folder, best)
        if stopper.saved:
            run.progress.update(phase="saved")
            return SAVED
        # The model first: what follows can be had again from it.
        run.progress.update(phase="saving")
        went_back = trainer.load_best()
        trainer.save_final()
        reporter.result = True
        prepared.held_out.after(again=went_back)
    finally:
        tracking.close()
    if first:
        write_summary(run.folder, trainer, prepared.rows, seconds)
        write_card(run.folder, config, machines, data)
        draw_curves(run.folder)
    run.progress.update(phase="finished")
    return 0


def _train(trainer: Any, run_dir: Path, best: Best) -> float:
    """Train from the newest complete checkpoint on; where nothing is left to train, only load it.

    Returns the seconds of the training loop, with evaluation and saving in it.
    """
    from accelerate.utils import broadcast_object_list

    # A network file system may show other nodes a directory as it was a minute ago.
    [found] = broadcast_object_list([checkpoints.complete(run_dir)])
    step, checkpoint = found[-1] if found else (0, None)
    if checkpoint:
        state = checkpoint / "trainer_state.json"
        best.recall(step)
        if step >= json.loads(state.read_text(encoding="utf-8"))["max_steps"] or best.exhausted(step):
            log.info("%s is the last step: nothing is left to train", checkpoint.name)
            _load(trainer, str(checkpoint))
            trainer.state = trainer.state.load_from_json(str(state))
            return 0.0
        log.info("resuming from %s", checkpoint.name)
    done = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return float(done.metrics["train_runtime"])


def _load(trainer: Any, checkpoint: str) -> None:
    if trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled:
        # What is shared out comes back only into the engine that shares it out.
        trainer._prepare_for_training(trainer.args.max_steps, trainer.get_train_dataloader(), checkpoint)
    else:
        trainer._load_from_checkpoint(checkpoint)
        trainer.model.to(trainer.args.device)
