"""The schema of a run: defaults that fit together, and words for what does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from trainers.config import RunConfig, explain, load

SMALLEST: dict[str, Any] = {
    "stage": "sft",
    "model": {"model_name_or_path": "Qwen/Qwen2.5-1.5B-Instruct"},
    "data": {"train_files": "train.csv"},
}


def problems(**changes: Any) -> list[str]:
    with pytest.raises(ValidationError) as wrong:
        RunConfig.model_validate({**SMALLEST, **changes})
    return explain(wrong.value)


def test_the_smallest_configuration_and_its_way_through_yaml(folder: Path) -> None:
    config = RunConfig.model_validate(SMALLEST)
    assert config.data.train_files == ["train.csv"]
    assert config.parallel.world_size == 1
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")), encoding="utf-8")
    assert load(path) == config


def test_every_error_at_once_each_with_its_place() -> None:
    assert problems(
        optim={"learning_rat": 1, "max_steps": "many"}, stage="sfd", model={}, precision={"dtype": "int8"}
    ) == [
        "stage: Input should be 'sft', not 'sfd'",
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
        ("parallel", {"offload": "optimizer"}, "offload needs strategy zero2"),
        ("data", {"train_files": "a", "eval_files": "b", "validation_split": 0.1}, "exclude each other"),
        (
            "model",
            {"model_name_or_path": "x", "adapter": "none", "adapter_name_or_path": "y"},
            "adapter none trains all weights",
        ),
    ],
)
def test_parts_that_do_not_fit_together(section: str, value: dict[str, Any], words: str) -> None:
    (line,) = problems(**{section: value})
    assert line.startswith(f"{section}: ")
    assert words in line


def test_no_trackers_has_two_spellings() -> None:
    for none in (None, "none", []):
        assert RunConfig.model_validate({**SMALLEST, "tracking": {"report_to": none}}).tracking.report_to == []
    config = RunConfig.model_validate({**SMALLEST, "tracking": {"report_to": "swanlab"}})
    assert config.tracking.report_to == ["swanlab"]
