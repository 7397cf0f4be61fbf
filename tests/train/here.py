"""Runs in this very process, one after the other: the libraries are loaded once for many short runs."""

from __future__ import annotations

import gc
import os
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from trainers.config import RunConfig, load, parse
from trainers.data.examples import load_examples
from trainers.run import Run, execute
from trainers.runtime.arguments import shared_arguments
from trainers.runtime.best import Best
from trainers.runtime.log import adopt_transformers
from trainers.runtime.meter import Meter
from trainers.runtime.progress import Progress
from trainers.runtime.stopping import Stop


def train_here(path: Path, code: int = 0) -> None:
    """Do all of ``python -m trainers`` but its signals and its log, to this exit code. Raises what the run raises."""
    before = dict(os.environ)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    os.environ["HF_HUB_OFFLINE"] = "1"
    folder = path.parent
    try:
        run = Run(folder, 1, Progress(folder / "progress.json", 1, writes=True), Stop(folder))
        assert execute(load(path), run) == code
    finally:
        torch.set_num_threads(threads)
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)
        gc.collect()


def config(start: Path, stage: str = "sft", **sections: Any) -> RunConfig:
    """A configuration whose model is to be loaded and whose data is not."""
    adopt_transformers()
    wanted = {"model_name_or_path": str(start), "lora": {"r": 4}, **sections.pop("model", {})}
    return parse({"stage": stage, "model": wanted, "data": {"train_files": ["none.csv"], "max_length": 64}} | sections)


def trainer_of(config: RunConfig, folder: Path) -> Any:
    """The trainer of a run on a CPU, ready for ``train``: to look at what a whole run does not show."""
    stop = Stop(folder)
    run = Run(folder, 1, Progress(folder / "progress.json", 1, writes=True), stop)
    arguments = shared_arguments(config, folder, "cpu") | {"deepspeed": None}
    stage = import_module(f"trainers.stages.{config.stage}")
    trainer = stage.prepare(config, run, arguments, load_examples(config)).trainer
    trainer.attach(folder, Meter(), stop, 1, Best(config.eval, folder))
    return trainer
