"""Stages kto and reward: single rated answers, and a model that rates them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.tiny import write_jsonl, write_run
from tests.train.conftest import environment, metrics, weights
from tests.train.preferences import pairs, run_all
from trainers.config import parse

SCHEDULE: dict[str, Any] = {
    "optim__max_steps": 20,
    "optim__learning_rate": 5e-3,
    "optim__per_device_train_batch_size": 4,
    "output__save_steps": 10,
    "eval__eval_steps": 10,
}


def rated(count: int, first: int = 0) -> list[dict[str, Any]]:
    """The answers of the pairs one by one."""
    return [
        {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
        for row in pairs(count, first)
        for side in ("chosen", "rejected")
    ]


def measured(run_dir: Path) -> list[dict[str, Any]]:
    """Metrics lines of held-out rows."""
    return [line for line in metrics(run_dir) if "eval_loss" in line]


def test_kto_learns_from_its_start(folder: Path, tiny_model: Path) -> None:
    data = write_jsonl(folder / "train.jsonl", rated(24))
    # Three good ones and two bad ones: not what comes out of means over batches of two.
    held_out = write_jsonl(folder / "held_out.jsonl", rated(3, first=100)[:5])

    def write(name: str, **overrides: Any) -> Path:
        values = {"stage": "kto", "data__eval_files": str(held_out), "optim__per_device_eval_batch_size": 2}
        return write_run(folder / name, tiny_model, data, **(SCHEDULE | values | overrides))

    runs = [
        write("new", model__lora={"r": 4, "lora_dropout": 0.1}),
        write("continued", model__adapter_name_or_path=str(folder / "new")),
        write("full", model__adapter="none", method__loss_type="apo_zero_unpaired"),
        write("weighted", method__desirable_weight=2.0),
    ]
    run_all(*runs)
    for run in runs:
        before, *_, after = measured(run.parent)
        assert before["eval_rewards/chosen"] == before["eval_rewards/rejected"] == 0.0, run.parent.name
        assert after["eval_rewards/margins"] > 0.1, run.parent.name
        assert after["eval_loss"] < before["eval_loss"]
        assert not list(run.parent.glob("**/ref"))
    # Half of each row's weight: 3 good and 2 bad ones.
    assert measured(folder / "new")[0]["eval_loss"] == pytest.approx(0.5)
    assert measured(folder / "weighted")[0]["eval_loss"] == pytest.approx((3 * 2 + 2) / 5 / 2)
    lines = [line for line in metrics(folder / "new") if "loss" in line]
    # What TRL calls KL is none.
    assert not any("kl" in line or "eval_kl" in line for line in metrics(folder / "new"))
    assert lines[0]["reference_point"] == 0.0 and any(line["reference_point"] > 0 for line in lines)


RATE = """
import sys
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from trainers.data.examples import load_examples
from trainers.config import load
from pathlib import Path
from trainers.data.answered import tokenise_pairs
from trainers.model.load import load_trained

for run in map(Path, sys.argv[1:]):
    config, final = load(run / "run.yaml"), str(run / "final_model")
    tokenizer = AutoTokenizer.from_pretrained(final)
    whole = config.model.adapter == "none"
    model = AutoModelForSequenceClassification.from_pretrained(final) if whole else load_trained(final, "classifier")
    assert model.config.num_labels == 1
    for row in tokenise_pairs(load_examples(config).held_out, tokenizer, 128, "held-out").rows:
        sides = [torch.tensor([row["prompt_ids"] + row[side]]) for side in ("chosen_ids", "rejected_ids")]
        good, bad = (model(side).logits for side in sides)
        assert good.shape == (1, 1) and good > bad, (good, bad)
"""


def test_a_reward_model_rates_held_out_pairs(folder: Path, tiny_model: Path) -> None:
    data = write_jsonl(folder / "train.jsonl", pairs(48))
    held_out = write_jsonl(folder / "held_out.jsonl", pairs(9, first=100))

    def write(name: str, **overrides: Any) -> Path:
        values = {"stage": "reward", "data__eval_files": str(held_out)}
        return write_run(folder / name, tiny_model, data, **(SCHEDULE | values | overrides))

    runs = [
        write("lora"),
        write("full", model__adapter="none"),
        write("centred", method__center_rewards_coefficient=0.5),
    ]
    run_all(*runs)
    for run in runs:
        assert measured(run.parent)[-1]["eval_accuracy"] == 1.0, run.parent.name
        assert measured(run.parent)[-1]["eval_margin"] > 0.5
    summary = json.loads((folder / "lora" / "training_metrics.json").read_text(encoding="utf-8"))
    assert summary["eval_after"]["eval_accuracy"] == 1.0
    assert abs(measured(folder / "centred")[-1]["eval_mean_reward"]) < 0.2
    argv = [sys.executable, "-c", RATE, str(folder / "lora"), str(folder / "full")]
    done = subprocess.run(argv, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert weights(folder / "lora") != weights(folder / "centred")


def test_kto_needs_other_rows_in_a_batch() -> None:
    values = {"stage": "kto", "model": {"model_name_or_path": "m"}, "data": {"train_files": "d"}}
    assert parse(values).optim.per_device_train_batch_size == 4
    with pytest.raises(ValidationError, match="per_device_train_batch_size must be 2 or more"):
        parse(values | {"optim": {"per_device_train_batch_size": 1}})
    parse(values | {"optim": {"per_device_train_batch_size": 1}, "method": {"loss_type": "apo_zero_unpaired"}})
