"""The schema of a run: defaults that fit together, and words for what does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from trainers.config import explain, load, parse

SMALLEST: dict[str, Any] = {
    "stage": "sft",
    "model": {"model_name_or_path": "Qwen/Qwen2.5-1.5B-Instruct"},
    "data": {"train_files": "train.csv"},
}


def problems(**changes: Any) -> list[str]:
    values = {**SMALLEST, **changes}
    with pytest.raises(ValidationError) as wrong:
        parse(values)
    return explain(wrong.value, values)


def test_the_smallest_configuration_and_its_way_through_yaml(folder: Path) -> None:
    config = parse(SMALLEST)
    assert config.data.train_files == ["train.csv"]
    assert config.parallel.world_size == 1
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")), encoding="utf-8")
    assert load(path) == config


def test_every_error_at_once_each_with_its_place() -> None:
    assert problems(
        optim={"learning_rat": 1, "max_steps": "many"}, stage="sfd", model={}, precision={"dtype": "int8"}
    ) == [
        "stage: Input should be 'cpt', 'mlm', 'sft', 'dpo', 'kto', 'reward', 'grpo', 'rloo', 'ppo', 'stage1' or "
        "'stage2', not 'sfd', did you mean sft?",
        "model.model_name_or_path: Field required",
        "optim.max_steps: Input should be a valid integer, unable to parse string as an integer, not 'many'",
        "optim.learning_rat: unknown key, did you mean learning_rate?",
        "precision.dtype: Input should be 'fp32', 'bf16' or 'fp16', not 'int8'",
    ]


def test_misspelled_keys_at_every_depth() -> None:
    assert problems(dat={}) == ["dat: unknown key, did you mean data?"]
    assert problems(model={"model_name_or_path": "x", "lora": {"alpha": 3}}) == [
        "model.lora.alpha: unknown key, did you mean lora_alpha?"
    ]
    assert problems(optim={"zzz": 1}) == ["optim.zzz: unknown key"]


@pytest.mark.parametrize(
    ("section", "value", "words"),
    [
        ("parallel", {"processes_per_node": 2}, "strategy single is for one process"),
        ("parallel", {"strategy": "zero2"}, "launcher python starts one plain process"),
        ("parallel", {"offload": "optimizer"}, "offload optimizer needs strategy zero1, zero2 or zero3"),
        ("data", {"train_files": "a", "eval_files": "b", "validation_split": 0.1}, "exclude each other"),
        (
            "model",
            {"model_name_or_path": "x", "adapter": "none", "adapter_name_or_path": "y"},
            "adapter none trains all weights",
        ),
        ("model", {"model_name_or_path": "x", "adapter": "none", "quantization": "4bit"}, "it needs adapter lora"),
        ("model", {"model_name_or_path": "x", "train_only": "*.mlp.*"}, "it needs adapter none"),
        ("data", {"train_files": ["a", "b"], "probabilities": [1]}, "1 probabilities for 2 train_files"),
        ("data", {"train_files": ["a", "b"], "probabilities": [0.5, 0.4]}, "add up to 0.9, not to 1"),
        ("eval", {"early_stopping_patience": 2}, "needs metric_for_best_model"),
    ],
)
def test_parts_that_do_not_fit_together(section: str, value: dict[str, Any], words: str) -> None:
    (line,) = problems(**{section: value})
    assert line.startswith(f"{section}: ")
    assert words in line


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": {"train_files": "a", "streaming": True}}, "data.streaming is for stage cpt"),
        ({"stage": "cpt", "data": {"train_files": "a", "streaming": True}}, "needs optim.max_steps"),
        ({"eval": {"metric_for_best_model": "eval_loss", "eval_steps": 5}}, "needs held-out rows"),
        ({"stage": "grpo", "method": {}}, "method: needs reward_functions or reward_model"),
        ({"stage": "stage1"}, "stage1 trains the model's own weights: set model.adapter to none"),
    ],
)
def test_a_stage_asks_for_what_it_needs(changes: dict[str, Any], words: str) -> None:
    (line,) = problems(**changes)
    assert words in line


def test_a_stage_knows_its_own_method_alone() -> None:
    assert problems(stage="dpo", method={"bta": 0.2}) == ["method.bta: unknown key, did you mean beta?"]
    assert problems(method={"beta": 0.1}) == ["method.beta: unknown key"]
    assert parse({**SMALLEST, "stage": "dpo", "method": {"loss_type": "ipo"}}).method.loss_type == ["ipo"]
    assert "did you mean hinge?" in problems(stage="dpo", method={"loss_type": "hnge"})[0]


def test_no_trackers_has_two_spellings() -> None:
    for none in (None, "none", []):
        assert parse({**SMALLEST, "tracking": {"report_to": none}}).tracking.report_to == []
    config = parse({**SMALLEST, "tracking": {"report_to": "swanlab"}})
    assert config.tracking.report_to == ["swanlab"]
