"""Names of older scripts: understood, answered with today's name, and the table for people is the same."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.documents import ROOT, tables
from tests.project import Answer
from trainers.config import STAGES, old_names
from trainers.config.fields import all_keys
from trainers.errors import InputProblem

KNOWN = frozenset(all_keys())
CANARY = "canary-77ab"


def today(**said: Any) -> old_names.Today:
    """``said`` has two underscores for a dot."""
    leaves = {key.replace("__", "."): value for key, value in said.items()}
    return old_names.translate(leaves, lambda key: f"r.yaml:{list(leaves).index(key) + 1}")


@pytest.mark.parametrize("new", sorted({*old_names.MOVED.values()}))
def test_every_new_name_exists(new: str) -> None:
    from clusterctl.schema import Profile

    assert new in KNOWN or new.removeprefix("profile.") in Profile.model_fields


def test_no_old_name_hides_a_key_of_today() -> None:
    for key in KNOWN - {"stage"}:
        translated = old_names.translate({key: "as it was"}, str)
        assert translated.values == {key: "as it was"}
        assert not translated.notes


@pytest.mark.parametrize(
    ("said", "values"),
    [
        ({"max_seq_len": 512}, {"data.max_length": 512}),
        ({"data__block_size": 512}, {"data.max_length": 512}),
        ({"training_args__learning_rate": 1e-5}, {"optim.learning_rate": 1e-5}),
        ({"ppo__rollout_n": 4}, {"method.num_generations": 4}),
        ({"method__rollout_n": 4}, {"method.num_generations": 4}),
        ({"stage": 1}, {"stage": "stage1"}),
        ({"stage": "basic"}, {"stage": "sft"}),
        ({"use_local_swanlab": True}, {"tracking.report_to": "swanlab", "tracking.swanlab_mode": "local"}),
        ({"use_swanlab": True}, {"tracking.report_to": "swanlab", "tracking.swanlab_mode": "cloud"}),
        (
            {"use_swanlab": True, "use_local_swanlab": True},
            {"tracking.report_to": "swanlab", "tracking.swanlab_mode": "local"},
        ),
        ({"use_swanlab": False}, {}),
        ({"use_bf16": True}, {"profile.dtype": "bf16"}),
        ({"peft__enabled": False}, {"model.adapter": "none"}),
        ({"peft__qlora": True}, {"model.quantization": "4bit"}),
        ({"load_in_8bit": "true"}, {"model.quantization": "8bit"}),
        ({"template_path": "self_model/template/qwen2_chatml.json"}, {"model.chat_template": "qwen2_chatml"}),
        ({"template_path": "own/mine.jinja"}, {"model.chat_template": "own/mine.jinja"}),
        ({"validation_split_percentage": 0.1}, {"data.validation_split": 0.1}),
        ({"validation_split_percentage": 5}, {"data.validation_split": 0.05}),
        ({"logger": ["console", "wandb"]}, {"tracking.report_to": ["wandb"]}),
        ({"stage": "ppo", "ppo__rollout_backend": "vllm"}, {"stage": "ppo", "method.verl.rollout": "vllm"}),
        ({"stage": "grpo", "ppo__rollout_backend": "hf"}, {"stage": "grpo", "method.use_vllm": False}),
        ({"ppo__kl_loss_coef": 0.01, "ppo__use_kl_loss": True}, {"method.beta": 0.01}),
        ({"ppo__use_kl_loss": True}, {"method.beta": 0.001}),
        ({"ppo__use_kl_loss": False, "ppo__kl_loss_coef": 0.01}, {"method.beta": 0.0}),
        ({"stage": "ppo", "ppo__kl_loss_coef": 0.01}, {"stage": "ppo", "method.kl_coef": 0.01}),
        ({"gpu_type": "A800"}, {"profile.gpu_type": "a800"}),
        ({"output_dir": "checkpoints"}, {}),
        (
            {"model_name_or_path": "a/b", "tokenizer_name_or_path": "a/b"},
            {"model.model_name_or_path": "a/b"},
        ),
    ],
)
def test_values_arrive_under_todays_name_and_a_note_says_so(said: dict[str, Any], values: dict[str, Any]) -> None:
    translated = today(**said)
    assert translated.values == values
    old = [key for key in said if key != "stage" or values["stage"] != said["stage"]]
    assert len(translated.notes) == len(old)
    assert all(note.startswith("r.yaml:") for note in translated.notes)


def test_the_note_is_one_line_with_place_old_and_new_name() -> None:
    assert today(max_seq_len=512).notes == ["r.yaml:1: max_seq_len is data.max_length today"]
    assert today(use_bf16=True).notes == ["r.yaml:1: use_bf16 true is profile.dtype bf16 today"]


def test_names_of_today_and_unknown_ones_pass_without_a_word() -> None:
    said = {
        "stage": "sft",
        "data__max_length": 8,
        "optim__learning_rte": 1,
        "model__learning_rate": 2,
        "description": "",
    }
    translated = today(**said)
    assert translated.values == {key.replace("__", "."): value for key, value in said.items()}
    assert not translated.notes


@pytest.mark.parametrize(
    "said",
    [
        {"max_seq_len": 1, "data__max_length": 2},
        {"data__max_length": 2, "max_seq_len": 1},
        {"block_size": 1, "max_seq_len": 2},
    ],
)
def test_two_spellings_at_once(said: dict[str, Any]) -> None:
    with pytest.raises(InputProblem) as twice:
        today(**said)
    one, other = (key.replace("__", ".") for key in said)
    assert twice.value.message == f"r.yaml:1: {one} and {other} (r.yaml:2) say the same thing"
    assert twice.value.hint == "keep one of them: data.max_length"


@pytest.mark.parametrize(
    "key", ["swanlab_api_key", "wandb_api_key", "api_key", "swanlab__api_key", "hf_token", "tracking__api_key"]
)
def test_a_secret_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(InputProblem) as refused:
        today(**{key: CANARY})
    assert "would store a secret" in refused.value.message and "SWANLAB_API_KEY" in refused.value.hint
    assert CANARY not in refused.value.message + refused.value.hint


def test_names_without_a_counterpart_say_what_to_do() -> None:
    with pytest.raises(InputProblem) as refused:
        today(deepspeed="ds.json")
    assert "zero3" in refused.value.hint
    with pytest.raises(InputProblem, match="the tokenizer is the model's own"):
        today(model_name_or_path="a/b", tokenizer_name_or_path="c/d")


# --- through the command line ------------------------------------------------------------------


def test_an_old_recipe_is_submitted_as_it_is(cli: Callable[..., Answer], recipe: Path, folder: Path) -> None:
    old = folder / "old.yaml"
    old.write_text(
        "stage: basic\nprofile: cpu\nmodel_dir: ./tiny\nuse_swanlab: true\nuse_local_swanlab: true\n"
        "data: {train_file: data.csv}\nmax_seq_len: 64\n"
        "training_args: {output_dir: out, num_train_epochs: 2}\nexperiment_name: wolves\n",
        encoding="utf-8",
    )
    answer = cli("plan", "old.yaml", "--set", "max_train_samples=1", "--json")
    assert answer.code == 0, answer.out
    [plan] = answer.json["data"]["plans"]
    assert plan["name"] == "wolves"
    found = {value["key"]: (value["value"], value["origin"]) for value in plan["values"]}
    assert found["data.max_length"] == (64, f"{old}:7")
    assert found["optim.num_train_epochs"] == (2, f"{old}:8")
    assert found["tracking.report_to"] == (["swanlab"], f"{old}:5")
    assert found["data.max_train_samples"] == (1, "--set data.max_train_samples")
    notes = answer.err.splitlines()
    assert notes[0] == "note:  --set max_train_samples: max_train_samples is data.max_train_samples today"
    assert f"note:  {old}:7: max_seq_len is data.max_length today" in notes
    # The script goes to standard output alone.
    assert cli("submit", "old.yaml", "--dry-run").out.startswith("#!")


def test_what_the_profile_decides_has_to_agree(cli: Callable[..., Answer], recipe: Path) -> None:
    with recipe.open("a", encoding="utf-8") as file:
        file.write("use_bf16: true\n")
    answer = cli("plan", "mine.yaml")
    assert answer.code == 2
    assert answer.err == (
        f"error: {recipe}:9: use_bf16 asks for profile.dtype=bf16, but profile cpu has fp32, and the profile decides\n"
        "hint:  take another profile, or say --set profile.dtype=bf16\n"
    )
    answer = cli("plan", "mine.yaml", "--set", "use_bf16=true", "--json")
    assert (answer.code, answer.json["data"]["plans"][0]["dtype"]) == (0, "bf16")


def test_a_key_on_the_command_line_is_refused(cli: Callable[..., Answer], recipe: Path, folder: Path) -> None:
    for words in (["plan"], ["submit"], ["submit", "--json"]):
        answer = cli(words[0], "mine.yaml", *words[1:], "--set", f"swanlab_api_key={CANARY}")
        assert answer.code == 2
        assert CANARY not in answer.out + answer.err
    assert not (folder / "logs").exists()
    answer = cli("plan", "mine.yaml", "--set", "max_seq_len=64", "--set", "data.max_length=32")
    assert "--set max_seq_len: max_seq_len and data.max_length (--set data.max_length) say the same thing" in answer.err


# --- the table for people -----------------------------------------------------------------------

ROWS = [row for table in tables(ROOT / "docs/migration.md", "before") for row in table]


def names(cell: str) -> list[str]:
    return [name.strip().removeprefix("--").split()[0].rstrip(":") for name in re.findall(r"`([^`]+)`", cell)]


def test_the_table_has_every_old_name_with_its_new_one() -> None:
    listed: dict[str, str] = {}
    for before, now in ((row[0], row[1]) for row in ROWS):
        listed.update(dict.fromkeys(names(before), now))
    for old, new in (*old_names.MOVED.items(), *((old, new) for old, (new, _) in old_names.CHANGED.items())):
        if old == "stage":
            continue
        assert old in listed, f"docs/migration.md does not name {old}"
        assert new in listed[old].replace("`", ""), f"docs/migration.md: {old} is {new}, not {listed[old]}"
    assert {*old_names.DROPPED, *old_names.REFUSED} <= set(listed)


def test_the_stages_of_old_scripts() -> None:
    assert set(old_names.STAGE_VALUES.values()) <= set(STAGES)
