"""``clusterctl plan`` before anything runs: fits or not, where, what would help, and what bad input gets."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fake_nvml.build import A40, FLEET, Card, fake_nvml_env
from tests.project import CLUSTERCTL, Answer

Cli = Callable[..., Answer]
BATCH = ("--set", "optim.per_device_train_batch_size=8", "--set", "model.gradient_checkpointing=false")

RECIPE = """\
stage: sft
model: {{model_name_or_path: {model}, adapter: {adapter}}}
data: {{train_files: data.csv, max_length: {length}}}
optim: {{train_batch_size: 8, num_train_epochs: 2}}
"""


@pytest.fixture
def server(tmp_path: Path) -> dict[str, str]:
    """The variables of a server with four A800 and four A40."""
    (tmp_path / "nvml").mkdir()
    return fake_nvml_env(tmp_path / "nvml", FLEET)


@pytest.fixture
def write(folder: Path) -> Callable[..., str]:
    """Write a recipe and its data; returns its name."""
    (folder / "data.csv").write_text("prompt,response\n" + "Who is it?,Player 3.\n" * 1000, encoding="utf-8")

    def make(model: str, adapter: str = "lora", length: int = 1024) -> str:
        text = RECIPE.format(model=model, adapter=adapter, length=length)
        (folder / "mine.yaml").write_text(text, encoding="utf-8")
        return "mine.yaml"

    return make


def planned(answer: Answer) -> dict[str, Any]:
    assert answer.code in (0, 4), answer.out + answer.err
    [plan] = answer.json["data"]["plans"]
    return dict(plan)


def test_a_small_model_fits_one_card_and_every_term_is_told(cli: Cli, write: Callable[..., str]) -> None:
    name = write("Qwen/Qwen2.5-1.5B-Instruct", "none")
    plan = planned(cli("plan", name, "--profile", "a40-1", "--json"))
    assert plan["verdict"]["fit"] in ("fits", "tight") and plan["fix"] is None
    assert plan["parameters"] == 1543714304 and plan["known_from"] == "the shipped catalogue"
    text = cli("plan", name, "--profile", "a40-1", "--explain").out
    total = sum(term["size"] for term in plan["memory"]["device"])
    assert f"Memory of the fullest GPU: {total / 2**30:.1f} GiB, an estimate" in text
    assert all(f"\n{term['name']}  " in text and term["formula"] in text for term in plan["memory"]["device"])
    assert all(f"\n{term['name']}  " in text for term in plan["memory"]["host"])
    assert all(f"\n{span['name']}  " in text for span in plan["duration"]["spans"])
    assert plan["batch"]["steps"] == 250 and plan["seconds"] == sum(s["seconds"] for s in plan["duration"]["spans"])


def test_rows_longer_than_the_model_was_made_for_are_told(cli: Cli, write: Callable[..., str], folder: Path) -> None:
    name = write("HuggingFaceTB/SmolLM2-135M-Instruct", length=9000)
    word = "rows of up to 9000 tokens, and HuggingFaceTB/SmolLM2-135M-Instruct was made for 8192"
    assert word not in (short := cli("plan", name, "--profile", "cpu")).err and short.code in (0, 4)
    (folder / "data.csv").write_text(f"prompt,response\nWho?,{'word ' * 12000}\n", encoding="utf-8")
    assert word in " ".join(cli("plan", name, "--profile", "cpu").err.split())
    stretched = ("--set", "model.rope_scaling={rope_type: linear, factor: 2.0}")
    assert word not in " ".join(cli("plan", name, "--profile", "cpu", *stretched).err.split())


def test_what_does_not_fit_says_the_number_and_the_command_that_helps(cli: Cli, write: Callable[..., str]) -> None:
    name = write("Qwen/Qwen2.5-7B", "none")
    answer = cli("plan", name, "--profile", "a800-1", "--name", "it's", "--json")
    plan = planned(answer)
    assert answer.code == 4 and plan["verdict"]["fit"] == "does not fit"
    assert "an A800 has 79.1" in plan["verdict"]["why"]
    words = shlex.split(plan["fix"]["command"])
    assert words[:3] == ["clusterctl", "submit", name] and "it's" in words
    # The command is the very thing that was tried: as a plan it fits.
    again = cli("plan", *words[2:], "--json")
    assert again.code == 0 and planned(again)["verdict"] == plan["fix"]["verdict"]
    # What the rungs leave alone is what is learnt.
    assert planned(again)["batch"]["effective"] == plan["batch"]["effective"] == 8


def test_a_batch_that_was_said_is_split_before_anything_else(cli: Cli, write: Callable[..., str]) -> None:
    name = write("Qwen/Qwen2.5-1.5B-Instruct")
    said = ["--set", "optim.per_device_train_batch_size=64", "--set", "optim.gradient_accumulation_steps=1"]
    plan = planned(cli("plan", name, "--profile", "a40-1", *said, "--set", "optim.train_batch_size=64",
                       "--set", "model.gradient_checkpointing=false", "--json"))  # fmt: skip
    assert plan["verdict"]["fit"] == "does not fit"
    assert "optim.gradient_accumulation_steps=" in plan["fix"]["command"]
    assert "rows at once" in plan["fix"]["words"] and "max_length" not in plan["fix"]["command"]
    again = planned(cli("plan", *shlex.split(plan["fix"]["command"])[2:], "--json"))
    assert again["verdict"]["fit"] in ("fits", "tight") and again["batch"]["effective"] == 64


def test_the_command_that_helps_keeps_what_was_asked(cli: Cli, write: Callable[..., str]) -> None:
    said = ["optim.per_device_train_batch_size=64", "optim.gradient_accumulation_steps=1", "optim.train_batch_size=64"]
    sets = [word for one in (*said, "model.gradient_checkpointing=false") for word in ("--set", one)]
    plan = planned(
        cli("plan", write("Qwen/Qwen2.5-7B"), "--profile", "gpu-1", "--gpu-type", "rtx3090", *sets, "--json")
    )
    assert plan["verdict"]["fit"] == "does not fit"
    words = shlex.split(plan["fix"]["command"])
    assert "--gpu-type rtx3090" in plan["fix"]["command"] or "rtx3090" in words[words.index("--profile") + 1]
    assert planned(cli("plan", *words[2:], "--json"))["verdict"] == plan["fix"]["verdict"]


def test_the_time_limit_is_reached_when_the_run_is_told_to_save(cli: Cli, write: Callable[..., str]) -> None:
    name = write("Qwen/Qwen2.5-1.5B-Instruct")
    seconds = planned(cli("plan", name, "--profile", "a40-1", "--json"))["seconds"]
    for limit, in_time in ((seconds + 290, False), (seconds + 310, True)):
        sets = ("--set", f"profile.time={int(limit) // 3600}:{int(limit) // 60 % 60:02}:{int(limit) % 60:02}")
        plan = planned(cli("plan", name, "--profile", "a40-1", *sets, "--json"))
        assert (plan["resources"]["signal_lead"], plan["in_time"]) == (300, in_time)


def test_bad_rows_are_a_line_where_no_profile_is_named(
    cli: Cli, write: Callable[..., str], folder: Path, server: dict[str, str]
) -> None:
    name = write("Qwen/Qwen2.5-1.5B-Instruct")
    for text, words in (("foo,bar\n1,2\n", "has the columns foo, bar"), ("prompt,response\n", "holds no rows")):
        (folder / "data.csv").write_text(text, encoding="utf-8")
        for command in ("plan", "submit"):
            answer = cli(command, name, **server)
            assert (answer.code, words in answer.err) == (2, True) and "Traceback" not in answer.err, answer.err


def test_on_a_mixed_server_the_ranking_looks_at_both(cli: Cli, write: Callable[..., str], tmp_path: Path) -> None:
    busy = replace(A40, used=40_000, processes={1: 40_000})
    t4 = Card("Tesla T4", "7.5", 15360)
    server = fake_nvml_env(tmp_path, [A40, busy, t4, t4, t4, t4])
    name = write("Qwen/Qwen2.5-1.5B-Instruct", "none")
    plan = planned(cli("plan", name, "--json", **server))
    places = {place["placement"]["profile"]: place for place in plan["choice"]["places"]}
    assert {profile.split("-")[0] for profile in places} == {"a40", "t4"}
    assert places["t4-1"]["reason"].startswith("does not fit: needs ") and "a T4 has 14.5" in places["t4-1"]["reason"]
    assert places["a40-2"]["placement"]["start"]["at"] is None, "one of the two is busy: nobody knows for how long"
    why = places["a40-2"]["placement"]["start"]["why"]
    assert why.startswith("1 free of 2; GPU 1 is used without a lease by pid 1")
    assert plan["profile"] == plan["choice"]["places"][0]["placement"]["profile"] and plan["wait"] == 0
    assert planned(cli("plan", name, "--gpu-type", "a40", "--json", **server))["profile"] == "a40-1"


def test_nothing_will_do_and_all_the_numbers_are_there(
    cli: Cli, write: Callable[..., str], server: dict[str, str]
) -> None:
    name = write("Qwen/Qwen2.5-72B", "none")
    submitted = cli("submit", name, "--gpus", "1", **server)
    assert submitted.code == 4 and "a800-1: does not fit: needs" in submitted.err
    answer = cli("plan", name, "--gpus", "1", **server)
    assert answer.code == 4 and "No profile will do" in answer.out


def test_the_table(cli: Cli, write: Callable[..., str], server: dict[str, str]) -> None:
    name = write("meta-llama/Llama-3.1-8B")
    answer = cli("plan", name, "--table", "--json", **server)
    [table] = answer.json["data"]["tables"]
    assert table["columns"] == ["AS IS", "CHECKPOINTING", "8-BIT", "4-BIT", "OFFLOAD"]
    rows = {row["key"]: row for row in table["rows"]}
    assert rows["a800"]["here"] and rows["a40"]["here"] and not rows["h100"]["here"]
    # A saving never costs room, and a larger card takes more.
    assert all(plain <= saved for plain, saved, *_ in (row["rows"] for row in table["rows"]))
    assert all(a >= b for a, b in zip(rows["a800"]["rows"], rows["a40"]["rows"], strict=True))
    assert rows["t4"]["rows"][0] == 0 < rows["t4"]["rows"][3], "8 B in 16 bits do not fit 15 GiB, in 4 bits they do"
    seen = cli("plan", name, "--table", **server).out
    assert "a800 (here)" in seen and "an estimate" in seen


# --- bad input --------------------------------------------------------------------------------


def test_a_model_that_nobody_knows_is_planned_with_the_nearest_names(cli: Cli, write: Callable[..., str]) -> None:
    answer = cli("plan", write("Qwen/Qwen2.5-1.5B-Instrukt"), "--profile", "a40-1", "--json")
    plan = planned(answer)
    assert answer.code == 0 and (plan["verdict"]["fit"], plan["memory"], plan["duration"]) == ("unknown", None, None)
    assert "Qwen/Qwen2.5-1.5B-Instruct" in answer.err and "not estimated" in answer.err
    table = cli("plan", "mine.yaml", "--table")
    assert table.code == 6 and "Traceback" not in table.err


def test_an_architecture_that_nobody_knows_is_bounded_and_says_so(
    cli: Cli, write: Callable[..., str], folder: Path
) -> None:
    (folder / "odd").mkdir()
    sizes = {"hidden_size": 2048, "num_hidden_layers": 24, "intermediate_size": 8192, "vocab_size": 50000}
    config = {"model_type": "wormhole", "num_attention_heads": 16, **sizes}
    (folder / "odd" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    answer = cli("plan", write("./odd"), "--profile", "a40-1", "--explain")
    assert answer.code in (0, 4), answer.err
    assert "at most" in answer.out and "bound" in answer.out and "wormhole" in answer.err


def test_memory_is_that_of_the_longest_row_and_not_of_what_the_recipe_allows(
    folder: Path, cli: Cli, write: Callable[..., str]
) -> None:
    def needs(*sets: str) -> int:
        options = [word for one in sets for word in ("--set", one)]
        name = write("Qwen/Qwen2.5-1.5B-Instruct", length=8192)
        plan = planned(cli("plan", name, "--profile", "a40-1", *BATCH, *options, "--json"))
        return int(plan["verdict"]["needs"])

    short = needs()
    assert short == needs("data.max_length=1024") < needs("data.max_length=128") * 2
    assert short < needs("method.packing=true") / 2
    # One long row is enough; it is in the file that is held out.
    (folder / "long.csv").write_text("prompt,response\n" + "Who is it?," + "Player 3. " * 800 + "\n", encoding="utf-8")
    assert needs("data.eval_files=long.csv") == needs("data.eval_files=long.csv", "data.max_length=9000") > 2 * short


def test_a_driver_that_does_not_answer_is_no_silent_reason_to_train_without_a_gpu(
    tmp_path: Path, cli: Cli, write: Callable[..., str]
) -> None:
    (tmp_path / "nvml").mkdir()
    broken = fake_nvml_env(tmp_path / "nvml", FLEET, init_error=9)
    name = write("Qwen/Qwen2.5-72B", "none")
    answer = cli("plan", name, **broken)
    assert answer.code == 4 and "no GPU is used: the NVIDIA driver is installed here, but" in answer.err
    assert "end         never, as it is" in answer.out
    submitted = cli("submit", name, "--dry-run", **broken)
    assert "does not fit, by estimate: needs" in submitted.err and "GiB of the node's memory" in submitted.err


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--profile", "a800-0"], 2, "has no GPUs"),
        (["--gpus", "0"], 2, "--gpus 0"),
        (["--gpus", "-3"], 2, "-3"),
        (["--profile", "a800-99999999999999999999"], 2, "gpus_per_node"),
        (["--profile", "a40-4", "--set", "data.max_length=0"], 2, "max_length"),
        (["--profile", "a40-64"], 4, "64 a40 on one node are more than there are"),
        (["--gpu-type", "a801"], 2, "a800"),
        (["--gpus", "64"], 4, "64 GPUs"),
        (["--profile", "a40-1", "--set", "data.max_length=100000000000", "--set", "method.packing=true"], 4, ""),
    ],
)
def test_absurd_wishes_get_a_line_and_not_a_traceback(
    cli: Cli, write: Callable[..., str], server: dict[str, str], options: list[str], code: int, words: str
) -> None:
    answer = cli("plan", write("Qwen/Qwen2.5-1.5B-Instruct"), *options, **server)
    assert answer.code == code, answer.out + answer.err
    assert words in answer.err and "Traceback" not in answer.err and len(answer.err.splitlines()) < 40


# --- how it looks, what it loads --------------------------------------------------------------


def test_eighty_columns_and_no_control_characters(cli: Cli, write: Callable[..., str], server: dict[str, str]) -> None:
    hostile = "a\x1b[31m b"
    answer = cli(
        "plan", write("Qwen/Qwen2.5-7B"), "--set", f"data.system={hostile} {'词' * 40}", COLUMNS="80", **server
    )
    assert answer.code in (0, 4), answer.err
    assert max(map(len, answer.out.splitlines())) <= 80
    assert "\x1b" not in answer.out and "a?[31m b" in answer.out
    assert "more would do, and are no better" in answer.out


def test_a_plan_loads_neither_torch_nor_what_it_does_not_need(
    home: dict[str, str], folder: Path, write: Callable[..., str]
) -> None:
    argv = [sys.executable, "-X", "importtime", CLUSTERCTL, "plan", write("Qwen/Qwen2.5-7B"), "--profile", "a40-1"]
    done = subprocess.run(argv, cwd=folder, env=home, capture_output=True, text=True, timeout=120)
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert done.returncode == 0 and "pydantic" in loaded
    assert not loaded & {"torch", "transformers", "numpy", "jinja2", "rich"}
