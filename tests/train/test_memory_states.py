"""The memory model's states against a real run of our trainers on a CPU: bytes of weights, gradients, optimiser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback

from clusterctl.models.adapter import trainable
from clusterctl.models.find import shape_of
from clusterctl.plan import states
from tests.tiny import make_rows
from tests.train.here import config as configure
from tests.train.here import trainer_of
from trainers.config import RunConfig

CASES: dict[str, dict[str, Any]] = {
    "full bf16": {"model": {"adapter": "none"}, "precision": {"dtype": "bf16"}},
    "full fp32": {"model": {"adapter": "none"}},
    "lora bf16": {"precision": {"dtype": "bf16"}},
    "lora fp32": {"model": {"lora": {"r": 3, "target_modules": ["q_proj", "down_proj"]}}},
    "lora and a whole embedding": {"model": {"lora": {"modules_to_save": ["embed_tokens"]}}},
    "frozen embedding": {"model": {"adapter": "none", "freeze": ["*.embed_tokens.*"]}},
    "adafactor": {"model": {"adapter": "none"}, "optim": {"optim": "adafactor"}},
    "sgd": {"model": {"adapter": "none"}, "optim": {"optim": "sgd"}},
    "dpo full": {"stage": "dpo", "model": {"adapter": "none"}, "precision": {"dtype": "bf16"}},
    "dpo lora": {"stage": "dpo", "precision": {"dtype": "bf16"}},
}


class Bytes(TrainerCallback):
    """Looks at the tensors of a run: gradients before the optimiser steps, its states behind it."""

    gradients = states = 0

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """All gradients are there."""
        self.gradients = sum(weight.grad.nbytes for weight in model.parameters() if weight.grad is not None)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        """States are there from the first step on. One number a weight, such as its step, is not looked at."""
        found = [
            value for one in optimizer.state.values() for name, value in one.items() if name not in ("step", "RMS")
        ]
        self.states = sum(value.nbytes for value in found if hasattr(value, "nbytes"))


@pytest.mark.parametrize("case", CASES)
def test_states_are_those_of_the_real_run(case: str, tiny_model: Path, tmp_path: Path) -> None:
    config = _config(tiny_model, tmp_path, CASES[case])
    shape = shape_of(str(tiny_model))
    learning = states.Learning(trainable(shape, config.model, config.stage), adapter=config.model.adapter == "lora")
    trainer, seen = _train(config, tmp_path)
    assert states.weights(config, shape, learning).size == _bytes(trainer.model)
    assert states.gradients(config, learning).size == seen.gradients
    assert states.optimiser(config, learning).size == seen.states
    second = states.second(config, shape, learning, None)
    reference = getattr(trainer, "ref_model", None)
    assert sum(term.size for term in second) == (_bytes(reference) if reference is not None else 0)


def _bytes(model: Any) -> int:
    return sum(weight.nbytes for weight in model.parameters())


def _config(tiny_model: Path, folder: Path, case: dict[str, Any]) -> RunConfig:
    rows = folder / "rows.jsonl"
    pair = case.get("stage") == "dpo"
    with rows.open("w", encoding="utf-8") as file:
        for question, answer in make_rows(8):
            row = {"prompt": question, "chosen": answer, "rejected": "No."}
            file.write(json.dumps(row if pair else {"prompt": question, "response": answer}) + "\n")
    values = {
        "data": {"train_files": [str(rows)], "max_length": 64},
        "parallel": {"device": "cpu"},
        **case,
        "optim": {"max_steps": 1, "gradient_accumulation_steps": 2, **case.get("optim", {})},
    }
    return configure(tiny_model, **values)


def _train(config: RunConfig, folder: Path) -> tuple[Any, Bytes]:
    trainer, seen = trainer_of(config, folder), Bytes()
    trainer.add_callback(seen)
    trainer.train()
    return trainer, seen
