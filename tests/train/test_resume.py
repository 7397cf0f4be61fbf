"""Stopping, crashing and going on: the result is the same, bit for bit, as if nothing had happened."""

from __future__ import annotations

import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import write_run
from tests.train.conftest import (
    environment,
    losses,
    metrics,
    progress,
    start,
    train,
    train_both,
    wait_for_step,
    weights,
)

SCHEDULE: dict[str, Any] = {
    # Everything that has a state: dropout, accumulation over batches, a schedule, evaluation in between,
    # epochs of 9 steps of which the last is short.
    "model__lora": {"r": 4, "lora_dropout": 0.2},
    "data__validation_split": 0.25,
    "optim__gradient_accumulation_steps": 2,
    "optim__warmup_steps": 10,
    "optim__max_steps": 300,
    "output__save_steps": 7,
    "eval__eval_steps": 50,
}


@pytest.fixture
def uninterrupted(folder: Path, data: Path, tiny_model: Path) -> Path:
    """A run to compare with."""
    run_dir = folder / "whole"
    ended = train(write_run(run_dir, tiny_model, data, **SCHEDULE))
    assert ended.code == 0, ended.err
    return run_dir


def test_stopped_killed_and_torn_is_bit_exact(folder: Path, data: Path, tiny_model: Path, uninterrupted: Path) -> None:
    run_dir = folder / "broken"
    run = write_run(run_dir, tiny_model, data, **SCHEDULE)

    # Asked to stop, in the middle of an epoch: saves at the step boundary.
    process = start(run)
    wait_for_step(process, run_dir, 30)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(60) == 85
    state = progress(run_dir)
    assert state["phase"] == "saved"
    assert 30 <= state["step"] < 300
    assert (run_dir / "checkpoints" / f"checkpoint-{state['step']}" / "COMPLETE").is_file()
    assert not (run_dir / "final_model").exists()

    # Killed without warning.
    process = start(run)
    wait_for_step(process, run_dir, state["step"] + 60)
    process.kill()
    process.wait(60)

    # And the newest checkpoint was not written to its end. Going on elsewhere is part of the promise.
    moved = folder / "moved"
    run_dir.rename(moved)
    complete = sorted(int(path.parent.name.split("-")[1]) for path in moved.glob("checkpoints/*/COMPLETE"))
    (moved / "checkpoints" / f"checkpoint-{complete[-1]}" / "COMPLETE").unlink()
    (moved / "checkpoints" / f"checkpoint-{complete[-1]}" / "optimizer.pt").write_bytes(b"torn")
    ended = train(moved / "run.yaml", CLUSTERCTL_ATTEMPT="3")
    assert ended.code == 0, ended.err
    assert f"resuming from checkpoint-{complete[-2]}" in ended.out
    resumed = [line["step"] for line in metrics(moved) if line["attempt"] == 3]
    assert resumed[0] == complete[-2] + 1

    assert weights(moved) == weights(uninterrupted)
    assert losses(moved)[300] == losses(uninterrupted)[300]
    final = [line for line in metrics(moved) if "eval_loss" in line][-1]
    assert final["eval_loss"] == [line for line in metrics(uninterrupted) if "eval_loss" in line][-1]["eval_loss"]

    # Once more, with nothing left to train: the model is made again from the last checkpoint.
    shutil.rmtree(moved / "final_model")
    ended = train(moved / "run.yaml")
    assert ended.code == 0, ended.err
    assert "nothing is left to train" in ended.out
    assert weights(moved) == weights(uninterrupted)


def test_full_weights_stopped_by_the_file_at_an_end_of_an_epoch(folder: Path, data: Path, tiny_model: Path) -> None:
    def write(name: str) -> Path:
        return write_run(folder / name, tiny_model, data, model__adapter="none", optim__num_train_epochs=2.0,
                         optim__max_steps=-1, optim__per_device_train_batch_size=48)  # fmt: skip

    whole, parts = write("whole"), write("parts")
    (parts.parent / "stop").touch()
    assert [ended.code for ended in train_both(whole, parts)] == [0, 85]
    state = progress(parts.parent)
    assert (state["phase"], state["step"], state["max_steps"]) == ("saved", 1, 2)
    # The file is the guard's to remove; at its last step a run finishes all the same.
    ended = train(parts)
    assert ended.code == 0, ended.err
    assert weights(parts.parent) == weights(whole.parent)


def test_disk_full_while_saving_keeps_the_previous_checkpoint(folder: Path, data: Path, tiny_model: Path) -> None:
    run_dir = folder / "run"
    run = write_run(run_dir, tiny_model, data, model__lora={"r": 32})
    (run_dir / "stop").touch()
    assert train(run).code == 85
    (run_dir / "stop").unlink()
    kept = run_dir / "checkpoints" / "checkpoint-1"
    size = (kept / "optimizer.pt").stat().st_size

    # A limit on the size of a file stops the write in its middle, as a full disk does.
    done = subprocess.run(
        [sys.executable, "-m", "trainers", str(run)],
        env=environment(),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    lines = done.stderr.splitlines()
    assert lines[0].startswith("error: checkpoint-4 could not be saved: ")
    assert lines[0].endswith("; checkpoint-1 is kept")
    assert lines[1].startswith("hint: ")
    assert len(lines) == 2
    assert [path.name for path in (run_dir / "checkpoints").iterdir()] == ["checkpoint-1"]
    assert progress(run_dir)["phase"] == "failed"
    assert "checkpoint-1 is kept" in progress(run_dir)["error"]
    # With room again it goes on from there.
    ended = train(run)
    assert ended.code == 0, ended.err
    assert "resuming from checkpoint-1" in ended.out


def test_guard_and_trainer_agree(folder: Path, data: Path, tiny_model: Path) -> None:
    run = write_run(folder / "run", tiny_model, data)

    def guard(*words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "trainers.guard", words[0], str(run.parent), *words[1:]]
        env = environment(CLUSTERCTL_JOB_ID="7")
        return subprocess.run(argv, env=env, capture_output=True, text=True, check=False)

    assert guard("begin").stdout == "1\n"
    (run.parent / "stop").touch()
    code = train(run, CLUSTERCTL_ATTEMPT="1").code
    ended = guard("end", str(code), "USR1")
    assert (ended.returncode, ended.stdout) == (85, "guard: saved at step 1, to be continued\n")
    assert guard("begin").stdout == "2\n"
    assert not (run.parent / "stop").exists()
    code = train(run, CLUSTERCTL_ATTEMPT="2").code
    ended = guard("end", str(code), "")
    assert (ended.returncode, ended.stdout) == (0, "guard: training finished\n")
    assert (run.parent / "final_model" / "adapter_model.safetensors").is_file()
