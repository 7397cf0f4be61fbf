"""Two processes: the same training as one, stopped together, and bit-exact when it goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.tiny import write_run
from tests.train.conftest import losses, metrics, progress, torchrun, train, weights

DDP = {"launcher": "torchrun", "strategy": "ddp", "processes_per_node": 2}
ZERO2 = {**DDP, "strategy": "zero2", "offload": "optimizer"}


def write(run_dir: Path, model: Path, data: Path, **changes: Any) -> Path:
    return write_run(
        run_dir,
        model,
        data,
        data__validation_split=0.25,
        optim__per_device_train_batch_size=2,
        optim__gradient_accumulation_steps=2,
        optim__max_steps=6,
        **changes,
    )


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The same run in one process, with the batch of both."""
    from tests.tiny import make_rows, write_csv

    folder = tmp_path_factory.mktemp("alone")
    data = write_csv(folder / "data.csv", make_rows())
    run = write(folder / "run", tiny_model, data)
    run.write_text(run.read_text().replace("per_device_train_batch_size: 2", "per_device_train_batch_size: 4"))
    ended = train(run)
    assert ended.code == 0, ended.err
    return run.parent


def evaluations(run_dir: Path) -> dict[int, tuple[float, float]]:
    return {
        line["step"]: (line["eval_loss"], line["eval_answer_accuracy"])
        for line in metrics(run_dir)
        if "eval_loss" in line
    }


def test_ddp_trains_as_one_process_does(folder: Path, data: Path, tiny_model: Path, alone: Path) -> None:
    run = write(folder / "run", tiny_model, data, parallel=DDP, eval__samples=3, eval__max_new_tokens=4)
    ended = train(run, launcher=torchrun(2))
    assert ended.code == 0, ended.err
    assert progress(run.parent)["phase"] == "finished"
    assert losses(run.parent) == pytest.approx(losses(alone), rel=1e-5)
    for step, measured in evaluations(alone).items():
        assert evaluations(run.parent)[step] == pytest.approx(measured, rel=1e-5)
    # Both processes' tokens are counted, and only once.
    assert len(losses(run.parent)) == len([line for line in metrics(run.parent) if "loss" in line])
    assert (run.parent / "samples.json").is_file()


def test_zero2_with_offload_stops_and_goes_on_bit_exact(
    folder: Path, data: Path, tiny_model: Path, alone: Path
) -> None:
    lora = {"r": 4, "lora_alpha": 8}
    whole = write(folder / "whole", tiny_model, data, parallel=ZERO2, model__lora=lora)
    ended = train(whole, launcher=torchrun(2))
    assert ended.code == 0, ended.err
    assert losses(whole.parent) == pytest.approx(losses(alone), rel=1e-4)
    assert (whole.parent / "deepspeed.json").is_file()

    parts = write(folder / "parts", tiny_model, data, parallel=ZERO2, model__lora=lora)
    (parts.parent / "stop").touch()
    # The launcher turns the workers' exit code into its own: the phase tells.
    assert train(parts, launcher=torchrun(2)).code != 0
    assert (progress(parts.parent)["phase"], progress(parts.parent)["step"]) == ("saved", 1)
    (parts.parent / "stop").unlink()
    ended = train(parts, launcher=torchrun(2))
    assert ended.code == 0, ended.err
    assert "resuming from checkpoint-1" in ended.out
    assert weights(parts.parent) == weights(whole.parent)


def test_a_launcher_that_starts_too_few_is_noticed(folder: Path, data: Path, tiny_model: Path) -> None:
    run = write(folder / "run", tiny_model, data, parallel=DDP)
    ended = train(run, launcher=torchrun(1))
    assert ended.code != 0
    assert "error: 1 processes work together, run.yaml plans 2" in ended.err
    # torchrun shows a traceback of its own, but not one of ours.
    assert "trainers/run.py" not in ended.err
