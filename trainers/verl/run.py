"""One attempt of a run with the engine verl: write what verl reads, start it, follow it, save."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING

from trainers.config import RunConfig
from trainers.data.examples import Examples
from trainers.errors import InputProblem, RunProblem
from trainers.guard import SAVED
from trainers.model.paths import adapter_folder, model_source
from trainers.rewards.load import load_rewards
from trainers.runtime.files import write_atomically, write_json
from trainers.runtime.summary import told
from trainers.verl.data import write_prompts, write_reward
from trainers.verl.follow import Follower, newest
from trainers.verl.overrides import overrides, prompts_in_step, steps_of
from trainers.verl.save import save_final

if TYPE_CHECKING:
    from trainers.run import Run

log = logging.getLogger(__name__)

LOOK = 1.0
"""Seconds between two looks at what verl has written."""

GRACE = 60
"""Seconds that verl has to end after it was told to, before it is killed."""

HINT = (
    "verl wants an older transformers than the other stages, so it needs an environment of its own: "
    "pip install 'clusterctl[rl]' and the engine that generates, such as vllm; name it in the site file"
)


def execute(config: RunConfig, run: Run, examples: Examples) -> int:
    """Train as configured. Returns the exit code: 0 finished, 85 saved to be continued. Raises TrainerError."""
    missing = [name for name in ("verl", "ray", config.method.verl.rollout) if not find_spec(_MODULES.get(name, name))]
    if missing:
        raise InputProblem(f"engine verl: {', '.join(missing)} is not installed here", hint=HINT)
    load_rewards(config.method.reward_functions, examples.train)
    command = write_all(config, run, examples)
    steps = steps_of(config, len(examples.train))
    gpus = config.parallel.world_size
    follower = Follower(run.folder, run.attempt, run.progress, gpus, steps)
    run.progress.update(phase="loading", device="cuda", max_steps=steps)
    began = time.monotonic()
    # Without an address Ray would join any cluster of this user on this machine. job.sh has started ours on many nodes.
    process = subprocess.Popen(
        command, cwd=run.folder, env={"RAY_ADDRESS": "local", **os.environ}, start_new_session=True
    )
    try:
        stopped = _follow(process, run, follower)
    finally:
        _end(process)
        follower.look()
    if stopped:
        log.info("asked to stop: what was done since step %s is done again", newest(run.folder) or 0)
        run.progress.update(phase="saved")
        return SAVED
    if process.returncode:
        raise RunProblem(
            f"verl ended with exit code {process.returncode} after step {follower.step}",
            hint="logs/job.err and logs/job.out have its last words; resuming goes on from its newest checkpoint",
        )
    run.progress.update(phase="saving")
    save_final(run.folder, model_source(config.model))
    _write_summary(config, run, examples, steps, time.monotonic() - began)
    run.progress.update(phase="finished", step=steps)
    return 0


_MODULES = {"trtllm": "tensorrt_llm"}
"""Packages that are imported under another name than verl's for them."""


def write_all(config: RunConfig, run: Run, examples: Examples) -> list[str]:
    """Write what verl reads below ``RUN_DIR/verl``, and return the command that starts it."""
    folder = run.folder / "verl"
    write_prompts(folder / "train.parquet", examples.train)
    # verl opens a file of held-out prompts in any case, and asks them only where it was told to.
    write_prompts(folder / "held_out.parquet", examples.held_out or examples.train[:1])
    write_reward(folder, config.method.reward_functions, config.method.reward_weights, examples.train[0])
    needed = prompts_in_step(config)
    if len(examples.train) < needed:
        raise InputProblem(
            f"a step takes {needed} prompts and there are {len(examples.train)}",
            hint="add rows, raise method.num_generations or lower optim.gradient_accumulation_steps",
        )
    adapter = config.model.adapter_name_or_path
    words = overrides(
        config,
        run.folder,
        run.attempt,
        model_source(config.model),
        str(adapter_folder(adapter)) if adapter else None,
        len(examples.train),
        len(examples.held_out),
    )
    write_atomically(run.folder / "verl_overrides.txt", "\n".join(words) + "\n")
    return [sys.executable, "-m", "verl.trainer.main_ppo", *words]


def _follow(process: subprocess.Popen[bytes], run: Run, follower: Follower) -> bool:
    """Until verl ends or the run is asked to stop; the answer is whether it was asked."""
    while process.poll() is None:
        if run.stop.requested():
            return True
        follower.look()
        time.sleep(LOOK)
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """End verl and all that it started here. Its workers elsewhere end with the driver, as Ray does it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        log.warning("verl did not end within %d s and is killed", GRACE)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _write_summary(config: RunConfig, run: Run, examples: Examples, steps: int, seconds: float) -> None:
    """``training_metrics.json`` of what is known here; the weights are verl's."""
    write_json(
        run.folder / "training_metrics.json",
        {
            "steps": steps,
            "epochs": steps * prompts_in_step(config) / len(examples.train),
            **told(run.folder, steps),
            "train_seconds": seconds,
            "world_size": config.parallel.world_size,
            "rows": {"training": len(examples.train), "held_out": len(examples.held_out)},
        },
    )
