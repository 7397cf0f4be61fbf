"""Bad input: one clear line, a hint, the right exit code, no traceback, and nothing written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.conftest import Answer

Cli = Callable[..., Answer]


def refused(answer: Answer, code: int, *words: str) -> None:
    assert answer.code == code, answer.err
    assert "Traceback" not in answer.err + answer.out
    first, *_, last = answer.err.strip().splitlines()
    assert first.startswith("error: ")
    assert last.startswith("hint: ")
    for word in words:
        assert word in answer.err


def nothing_written(folder: Path) -> None:
    assert not (folder / "logs").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--set", "optim.lerning_rate=1"], ["optim.lerning_rate", "did you mean optim.learning_rate?"]),
        (["--set", "adam_beta1=0.5"], ["did you mean optim.adam_beta1?"]),
        (["--set", "optim.lerning_rate=1", "--set", "foo.bar=1"], ["did you mean optim.learning_rate?", "foo.bar"]),
        (["--set", "method.beta=1"], ["--set method.beta", "it belongs to stage dpo, kto, grpo, rloo"]),
        (["--set", "data=3"], ["data: keys with values are wanted"]),
        (["--set", "data.train_files=tiny/config.yaml"], ["there is no file"]),
        (["--set", "data.train_files=mine.yaml"], ["mine.yaml: none of the kinds .csv"]),
        (["--set", "model.model_name_or_path=tiny/tinny"], ["there is no directory"]),
        (["--set", "profile.dtype=fp16"], ["dtype fp16 needs a GPU"]),
        (["--set", "optim.learning_rate=quick"], ["optim.learning_rate", "'quick'", "--set"]),
        (["--set", "optim.learning_rate"], ["not key=value"]),
        (["--set", "data.train_files=nowhere.csv"], ["data.train_files", "nowhere.csv"]),
        (["--set", "model.model_name_or_path=./nowhere"], ["model.model_name_or_path", "nowhere"]),
        (["--set", "model.adapter_name_or_path=nowhere"], ["neither a directory nor a run"]),
        (["--set", "profile.time=soon"], ["time", "'soon'"]),
        (["--set", "profile.gpus=2"], ["unknown key gpus"]),
        (["--set", "parallel.strategy=ddp"], ["parallel.strategy cannot be said here", "profile.strategy"]),
        (["--set", "kind=test"], ["clusterctl test"]),
        (["--set", "data.train_files=" + "x" * 300], ["File name too long"]),
        (["--set", "model.model_name_or_path=~nosuchuser/x"], ["no such home"]),
        (["--set", "model.adapter_name_or_path=" + "x" * 300], ["File name too long"]),
        (["--set", "name=x"], ["--name"]),
        (["--set", "optim=5"], ["optim"]),
        (["--set", "optim.max_steps=0"], ["0 steps train nothing"]),
        (["--set", "profile.time=99999999999999999999"], ["time"]),
        (["--set", "profile.env={WANDB_API_KEY: canary}"], ["WANDB_API_KEY", "chmod 600"]),
        (["--profile", "a80"], ["unknown profile 'a80'", "a800-1"]),
        (["--scheduler", "pbs"], ["unknown scheduler 'pbs'"]),
        (["--after", "nothing"], ["there are no runs"]),
        (["--name", "x\ntouch pwned"], ["name", "line breaks"]),
    ],
)
def test_wrong_options(cli: Cli, recipe: Path, words: list[str], expected: list[str]) -> None:
    answer = cli("submit", str(recipe), *words)
    refused(answer, 6 if "--after" in words else 2, *expected)
    nothing_written(recipe.parent)


def test_all_errors_of_a_recipe_at_once_with_file_and_line(cli: Cli, recipe: Path) -> None:
    text = recipe.read_text(encoding="utf-8")
    recipe.write_text(
        text.replace("1e-4", "fast") + "  num_train_epoch: 3\nmodle: x\nmethod:\n  beta: 0.1\n", encoding="utf-8"
    )
    answer = cli("submit", str(recipe))
    refused(
        answer,
        2,
        "mine.yaml:8",
        "optim.learning_rate",
        "did you mean optim.num_train_epochs?",
        "unknown key modle",
        "did you mean model?",
        "unknown key method.beta",
        "it belongs to stage dpo, kto, grpo, rloo",
        "(4 errors)",
    )
    nothing_written(recipe.parent)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stage: [sft", ["not valid YAML", "mine.yaml:"]),
        ("- a\n- b\n", ["no `key: value` pairs"]),
        ("stage: sft\nstage: sft\n", ["mine.yaml:2", "again"]),
        ("stage: dance\n", ["stage", "'dance'"]),
        ("pipeline: sft\n", ["a pipeline is a list of recipes"]),
        ("pipeline: []\n", ["a pipeline is a list of recipes"]),
        ("pipeline: [{recipe: sft}]\nmodel: {adapter: lora}\n", ["beside it only `description` and `profile`"]),
        ("\tstage: sft\n", ["not valid YAML"]),
        (
            "profile: cpu\nstage: sft\nparallel: {strategy: ddp}\n",
            ["parallel.strategy cannot be said here", "profile.strategy"],
        ),
    ],
)
def test_broken_recipes(cli: Cli, recipe: Path, text: str, words: list[str]) -> None:
    recipe.write_text(text, encoding="utf-8")
    refused(cli("submit", str(recipe), "--dry-run"), 2, *words)
    nothing_written(recipe.parent)


def test_a_recipe_that_is_not_text(cli: Cli, recipe: Path) -> None:
    recipe.write_bytes(b"stage: \xff\xfe")
    refused(cli("submit", str(recipe)), 2, "not UTF-8")
    refused(cli("submit", str(recipe.with_name("none.yaml"))), 6, "there is no file")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gpus_per_nod: 4\n", ["did you mean gpus_per_node?"]),
        ("time: 1:00\nsignal_lead: 5:00\n", ["signal_lead"]),
        ("gpus_per_node: 2\nprocesses_per_node: 3\n", ["processes_per_node"]),
        ("processes_per_node: 2\n", ["strategy single"]),
        ("processes_per_node: 2\nstrategy: ddp\n", ["launcher python"]),
        ("env:\n  'A B': x\n", ["no name of an environment variable"]),
        ("mem: lots\n", ["no amount of memory"]),
        ('partition: "a\\nb"\n', ["line breaks"]),
        ("nodes: 2\nlauncher: torchrun\nstrategy: ddp\n", ["without Slurm there is one"]),
    ],
)
def test_broken_profiles(cli: Cli, recipe: Path, text: str, words: list[str]) -> None:
    path = recipe.with_name("p.yaml")
    path.write_text(text, encoding="utf-8")
    refused(cli("submit", str(recipe), "--profile", str(path)), 2, *words)
    nothing_written(recipe.parent)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("partition: {}\n", ["clusterctl.yaml:1", "did you mean partitions?"]),
        ("environment: {kind: conda}\n", ["kind conda needs `name`"]),
        ("secrets: {names: ['A; rm']}\n", ["no name of an environment variable"]),
        ("tracking: {report_too: swanlab}\n", ["tracking.report_too"]),
    ],
)
def test_broken_site_files(cli: Cli, recipe: Path, text: str, words: list[str]) -> None:
    recipe.with_name("clusterctl.yaml").write_text(text, encoding="utf-8")
    refused(cli("submit", str(recipe)), 2, *words)
    nothing_written(recipe.parent)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("", ["data.csv"]),
        ("prompt,response\n", ["data.csv"]),
        ("prompt,response\na,b\nc,\n", ["data.csv", "3"]),
        ("question,reply\na,b\n", ["question"]),
    ],
)
def test_bad_data_is_found_before_submission(cli: Cli, recipe: Path, rows: str, words: list[str]) -> None:
    recipe.with_name("data.csv").write_text(rows, encoding="utf-8")
    refused(cli("submit", str(recipe)), 2, *words)
    nothing_written(recipe.parent)


def test_a_directory_that_is_no_model(cli: Cli, recipe: Path) -> None:
    (recipe.parent / "tiny" / "config.json").unlink()
    refused(cli("submit", str(recipe)), 2, "no model", "config.json")
    nothing_written(recipe.parent)


def test_output_root_that_cannot_be_written(cli: Cli, recipe: Path) -> None:
    (recipe.parent / "file").write_text("", encoding="utf-8")
    answer = cli("submit", str(recipe), CLUSTERCTL_OUTPUT_ROOT=str(recipe.parent / "file" / "runs"))
    refused(answer, 3, "cannot write", "output_root")
    answer = cli("submit", str(recipe), CLUSTERCTL_OUTPUT_ROOT="/proc/runs")
    refused(answer, 3, "/proc/runs")


def test_slurm_that_is_not_installed(cli: Cli, recipe: Path) -> None:
    refused(cli("submit", str(recipe), "--scheduler", "slurm"), 3, "sbatch")
    assert not list((recipe.parent / "logs").glob("*/record.json"))


def test_unknown_command_and_option(cli: Cli) -> None:
    refused(cli("submitt", "sft"), 2, "submit")
    refused(cli("submit"), 2, "RECIPE")
    refused(cli("status", "--wach"), 2, "--watch")


def test_errors_as_json(cli: Cli) -> None:
    answer = cli("submit", "sfft", "--json")
    assert answer.code == 2
    assert answer.json["ok"] is False
    assert answer.json["schema"] == 1
    assert answer.json["error"]["type"] == "UsageProblem"
    assert answer.json["error"]["hint"] == "did you mean sft?"
