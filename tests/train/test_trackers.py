"""Trackers: several at once, without a network, without a key anywhere; one that fails does so before training."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from tests.tiny import write_run
from tests.train.conftest import train, train_both

CANARY = "c0ffee5f1d0cc0ffee5f1d0cc0ffee5f1d0cc0ff"
"""40 characters, as W&B wants its keys."""


def test_all_at_once_offline(folder: Path, data: Path, tiny_model: Path) -> None:
    tracking = {
        "report_to": ["swanlab", "tensorboard", "wandb"],
        "swanlab_mode": "offline",
        "wandb_mode": "offline",
        "project": "wolves",
    }
    run = write_run(
        folder / "run", tiny_model, data, tracking=tracking, name="a'; echo foo", data__validation_split=0.2
    )
    ended = train(run, SWANLAB_API_KEY=CANARY, WANDB_API_KEY=CANARY, HOME=str(folder))
    assert ended.code == 0, ended.err
    assert list((run.parent / "swanlab").glob("run-*/*.swanlab"))
    assert list((run.parent / "wandb").glob("offline-run-*/*.wandb"))

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.parent / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == list(range(1, 9))
    assert [event.step for event in events.Scalars("eval/loss")] == [0, 8]
    for path in folder.rglob("*"):
        if path.is_file():
            assert CANARY.encode() not in path.read_bytes(), path
    assert CANARY not in ended.out + ended.err


def test_swanlab_local(folder: Path, data: Path, tiny_model: Path) -> None:
    run = write_run(folder / "run", tiny_model, data, tracking={"report_to": ["swanlab"], "swanlab_mode": "local"})
    ended = train(run, HOME=str(folder))
    if find_spec("swanboard"):
        assert ended.code == 0, ended.err
        assert list((run.parent / "swanlab").glob("run-*"))
    else:
        assert ended.code == 1
        assert ended.err.startswith("error: tracker swanlab does not start: mode local needs the package swanboard")


def test_a_tracker_without_its_key_is_refused_before_training(folder: Path, data: Path, tiny_model: Path) -> None:
    runs = [
        write_run(folder / name, tiny_model, data, tracking={"report_to": [name], **mode})
        for name, mode in (("swanlab", {"swanlab_mode": "cloud"}), ("wandb", {"wandb_mode": "online"}))
    ]
    for run, ended in zip(runs, train_both(*runs, HOME=str(folder)), strict=True):
        name = run.parent.name
        assert ended.code == 1, ended.err
        error, hint = [line for line in ended.err.splitlines() if line.startswith(("error: ", "hint: "))]
        assert error.startswith(f"error: tracker {name} does not start: ")
        assert f"{name.upper()}_API_KEY" in hint
        assert "Traceback" not in ended.err
        assert not list((run.parent / "checkpoints").glob("*"))
