"""``clusterctl plan``: the numbers of a run before it is submitted, and who said what."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clusterctl.plan.batch import arithmetic
from tests.project import Answer
from trainers.config import parse

Cli = Callable[..., Answer]


def config(stage: str = "sft", processes: int = 1, method: dict[str, Any] | None = None, **optim: Any) -> Any:
    parallel = {"processes_per_node": processes}
    parallel |= {"launcher": "torchrun", "strategy": "ddp"} if processes > 1 else {}
    return parse(
        {
            "stage": stage,
            "model": {"model_name_or_path": "a/b"},
            "data": {"train_files": "a.csv"},
            "method": method or {},
            "optim": optim,
            "parallel": parallel,
        }
    )


def test_the_arithmetic_of_four_cards() -> None:
    asked = config(processes=4, per_device_train_batch_size=2, gradient_accumulation_steps=8, num_train_epochs=3)
    batch = arithmetic(asked, 1000)
    assert (batch.effective, batch.steps_per_epoch, batch.steps) == (64, 16, 48)
    assert arithmetic(asked, None).steps is None
    assert arithmetic(config(max_steps=7), None).steps == 7
    assert arithmetic(config(max_steps=7), 1000).steps == 7


def test_answers_of_rollouts_come_in_groups() -> None:
    method = {"reward_functions": "exact_match", "num_generations": 4, "num_iterations": 2}
    asked = config("grpo", method=method, per_device_train_batch_size=8, gradient_accumulation_steps=1)
    batch = arithmetic(asked, 101)
    assert (batch.unit, batch.effective, batch.group) == ("answers", 8, 4)
    # Two prompts a step, the last one fills none; each answer is used twice.
    assert batch.steps_per_epoch == 100


def lines(answer: Answer) -> dict[str, str]:
    """The facts of a plan by their first word."""
    assert answer.code == 0, answer.err
    return {line.split("  ")[0]: line.partition("  ")[2].strip() for line in answer.out.splitlines() if "  " in line}


def test_what_a_person_sees(cli: Cli, recipe: Path, folder: Path) -> None:
    (folder / "data.csv").write_text("prompt,response\n" + "q,a\n" * 1000, encoding="utf-8")
    profile = folder / "four.yaml"
    profile.write_text(
        "gpu_type: a800\ngpus_per_node: 4\nlauncher: torchrun\nstrategy: ddp\ntime: 2:00:00\n"
        "set: {optim.per_device_train_batch_size: 2}\n",
        encoding="utf-8",
    )
    answer = cli("plan", "mine.yaml", "--profile", "four.yaml", "--set", "model.lora.r=4", "--scheduler", "slurm")
    said = lines(answer)
    assert said["batch"] == "2 per device x 4 processes x 8 accumulated = 64 rows a step"
    assert said["steps"] == "1000 rows / 64 -> 16 steps an epoch x 3 epochs -> 48 steps"
    assert said["hardware"] == "profile four.yaml on slurm: 1 node, 4 a800 each"
    assert said["processes"] == "torchrun, ddp, bf16"
    assert said["time limit"] == "2h 00m; 5m 00s before it the run saves"
    table = [line.split() for line in answer.out.splitlines()]
    assert ["model.lora.r", "4", "--set", "model.lora.r"] in table
    assert ["optim.per_device_train_batch_size", "2", "profile", "four.yaml,", "set"] in table
    # What is the default, though somebody said it, is no news.
    assert not any(row[:1] == ["optim.learning_rate"] for row in table)
    assert not (folder / "logs").exists()


def test_a_pipeline_is_planned_member_by_member(cli: Cli, recipe: Path, folder: Path) -> None:
    (folder / "both.yaml").write_text("pipeline: [mine.yaml, {recipe: mine.yaml, name: again}]\n", encoding="utf-8")
    plans = cli("plan", "both.yaml", "--json").json["data"]["plans"]
    assert [plan["name"] for plan in plans] == ["mine", "again"]
    assert plans[1]["adapter"].startswith("lora, going on with ")


def test_bad_input_is_refused_as_submit_does(cli: Cli, recipe: Path) -> None:
    for words in (["--set", "optim.max_step=3"], ["--profile", "nope"]):
        one, other = (cli(command, "mine.yaml", *words) for command in ("plan", "submit"))
        assert one.code == 2
        assert one.err == other.err


SHOW = """#!{python}
import json, sys
if "trainers.show" not in sys.argv:
    sys.exit(0)
print("a library talks")
{said}
"""


@pytest.fixture
def stand_in(folder: Path, recipe: Path) -> Callable[[str], None]:
    """A Python of the job that answers what it is told."""
    import sys

    python = folder / "python"
    (folder / "clusterctl.yaml").write_text(f"environment: {{kind: python, path: {json.dumps(str(python))}}}\n")

    def write(said: str) -> None:
        python.write_text(SHOW.format(python=sys.executable, said=said), encoding="utf-8")
        python.chmod(0o755)

    return write


def test_rows_are_shown_with_marks(cli: Cli, stand_in: Callable[[str], None]) -> None:
    shown = {
        "schema": 1,
        "stage": "sft",
        "unit": "blocks",
        "rows": 10,
        "counts": {"packed": 40, "truncated": 3, "dropped": 1, "training": 10, "held_out": 5},
        "tokens": 200,
        "learnt": 50,
        "longest": 64,
        "samples": [[["context", "Who? [red]"], ["trained", "Player 3.<|im_end|>"], ["border", ""], ["context", "b"]]],
        "notes": ["training rows: 3 of 41 were cut at 64 tokens"],
    }
    stand_in(f"print({json.dumps(json.dumps(shown))})")
    answer = cli("plan", "mine.yaml", "--show-batch")
    assert answer.code == 0, answer.err
    assert "Who? [red][[Player 3.<|im_end|>]]\n=== the next document" in answer.out
    for words in (
        "10 blocks / 4 -> 3 steps an epoch",
        "50 of 200 tokens learnt (25%)",
        "3 of 41 rows cut at data.max_length (7%)",
        "1 of 41 rows left out (2%)",
        "longest 64 tokens",
        "note: training rows: 3 of 41",
    ):
        assert words in answer.out


def test_rows_that_cannot_be_shown(cli: Cli, stand_in: Callable[[str], None]) -> None:
    error = {"error": {"message": "training rows: 1 of 2 rows cannot be used\n  row 2: empty", "hint": "correct it"}}
    stand_in(f"print({json.dumps(json.dumps(error))}); sys.exit(2)")
    answer = cli("plan", "mine.yaml", "--show-batch")
    assert (answer.code, answer.err) == (
        2, "error: training rows: 1 of 2 rows cannot be used\n  row 2: empty\nhint:  correct it\n",
    )  # fmt: skip
    stand_in("sys.exit('Traceback: no torch')")
    answer = cli("plan", "mine.yaml", "--show-batch")
    assert answer.code == 3
    assert answer.err.startswith("error: the rows cannot be shown here: Traceback: no torch\nhint:  ")


def test_an_environment_that_is_not_here(cli: Cli, recipe: Path, folder: Path) -> None:
    (folder / "clusterctl.yaml").write_text("environment: {kind: venv, path: nowhere}\n", encoding="utf-8")
    answer = cli("plan", "mine.yaml", "--show-batch")
    assert answer.code == 3
    assert "there is no environment" in answer.err and "python3 -m venv" in answer.err


def test_a_shipped_template_is_known_by_its_name(cli: Cli, recipe: Path) -> None:
    values = cli("plan", "mine.yaml", "--set", "model.chat_template=chatglm3", "--json").json["data"]["plans"][0][
        "values"
    ]
    assert {"key": "model.chat_template", "value": "chatglm3", "origin": "--set model.chat_template"} in values
    answer = cli("submit", "mine.yaml", "--set", "model.chat_template=qwen2-chatml", "--dry-run")
    assert answer.code == 2
    assert "no file" in answer.err and "did you mean qwen2_chatml?" in answer.err
