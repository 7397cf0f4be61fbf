"""Stage cpt: plain text lowers perplexity, nothing is lost on the way, and streams go on where they were."""

from __future__ import annotations

import json
from math import ceil
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import make_rows, write_jsonl, write_run
from tests.train.conftest import losses, metrics, weights
from tests.train.here import train_here
from trainers import prepare


@pytest.fixture
def text(folder: Path) -> Path:
    """120 documents of one to seven sentences, and an empty one."""
    sentences = [" ".join(row) for row in make_rows(200)]
    rows = [{"text": " ".join(sentences[number : number + 1 + number % 7])} for number in range(120)]
    return write_jsonl(folder / "text.jsonl", [*rows, {"text": " "}])


def run(folder: Path, name: str, model: Path, text: Path, **overrides: Any) -> Path:
    wanted = {"model__adapter": "none", "data__max_length": 64, "optim__learning_rate": 3e-3, **overrides}
    return write_run(folder / name, model, text, stage="cpt", **wanted)


def test_perplexity_falls_and_the_epochs_are_whole(
    folder: Path, text: Path, tiny_model: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted: dict[str, Any] = {
        "data__validation_split": 0.2,
        "optim__max_steps": -1,
        "optim__num_train_epochs": 2.0,
        "optim__gradient_accumulation_steps": 4,
    }
    packed = run(folder, "packed", tiny_model, text, **wanted)
    # Before the job takes a GPU.
    assert prepare.main([str(packed)]) == 0
    counted = capsys.readouterr().out
    with caplog.at_level("INFO", "trainers"):
        train_here(packed)
        train_here(run(folder, "unpacked", tiny_model, text, method__packing=False, **wanted))
    found = [message for message in caplog.messages if message.startswith("tokenised rows")]
    assert [message.split()[2] for message in found] == ["found", "are"]

    steps = {}
    for name in ("packed", "unpacked"):
        summary = json.loads((folder / name / "training_metrics.json").read_text(encoding="utf-8"))
        rows = summary["rows"]
        assert (rows["documents"], rows["skipped"]) == (96, 1)
        assert rows["cut"] > 10
        per_epoch = ceil(ceil(rows["training"] / 2) / 4)
        assert summary["steps"] == 2 * per_epoch
        assert f"{per_epoch} steps an epoch x 2 epochs = {2 * per_epoch} steps" in caplog.text
        # Every token but the first of each document and the overlaps is read twice.
        assert rows["tokens"] <= summary["tokens"] / 2 < 1.05 * rows["tokens"]
        assert summary["eval_after"]["eval_perplexity"] < 0.8 * summary["eval_before"]["eval_perplexity"]
        steps[name] = summary["steps"], rows["training"], summary["eval_before"]
    assert counted == f"rows: {next(m for m in caplog.messages if m.startswith('rows: ')).removeprefix('rows: ')}\n"
    assert steps["packed"][0] < steps["unpacked"][0]
    # Held-out rows are measured the same either way.
    assert steps["packed"][2] == steps["unpacked"][2]


def test_a_stream_goes_on_where_it_was(folder: Path, text: Path, tiny_model: Path) -> None:
    # More steps than the stream has rows for: it begins again.
    wanted: dict[str, Any] = {"data__streaming": True, "optim__max_steps": 70, "output__save_steps": 60}
    train_here(run(folder, "whole", tiny_model, text, **wanted))
    parts = run(folder, "parts", tiny_model, text, **wanted)
    (parts.parent / "stop").touch()
    train_here(parts, code=85)
    (parts.parent / "stop").unlink()
    train_here(parts)
    assert [line["step"] for line in metrics(parts.parent)][:3] == [1, 2, 3]
    assert losses(parts.parent) == losses(folder / "whole")
    assert weights(parts.parent) == weights(folder / "whole")
    assert losses(parts.parent)[70] < 0.9 * losses(parts.parent)[1]
