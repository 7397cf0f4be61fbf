"""--gpu-type, --gpus, --gpu-ids, --mixed through the command line, on a server of 4 A800 and 4 A40 that NVML shows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fake_nvml.build import MIXED_SERVER, fake_nvml_env
from tests.unit.conftest import Answer

Cli = Callable[..., Answer]
MODEL = ("--set", "model.model_name_or_path=Qwen/Qwen2.5-1.5B-Instruct")


@pytest.fixture
def server(cli: Cli, recipe: Path, tmp_path: Path) -> Cli:
    """Words of a command, on the server, for a recipe that names no profile."""
    recipe.write_text(recipe.read_text(encoding="utf-8").replace("profile: cpu\n", ""), encoding="utf-8")
    env = fake_nvml_env(tmp_path, MIXED_SERVER)
    return lambda *words: cli(*words[:1], "mine.yaml", *MODEL, *words[1:], **env)


def submitted(server: Cli, folder: Path, *words: str) -> dict[str, Any]:
    """What a real submission asks of the runner. The Python of the job is a program that ends at once."""
    (folder / "clusterctl.yaml").write_text("environment: {kind: python, path: /bin/true}\n", encoding="utf-8")
    answer = server("submit", "--json", "--set", "profile.time=0:10:00", *words)
    assert answer.code == 0, answer.err
    run = answer.json["data"]["runs"][0]["run_id"]
    record: dict[str, Any] = json.loads((folder / "logs" / run / "record.json").read_text(encoding="utf-8"))
    return record


def test_cards_by_hand_reach_the_runner(server: Cli, folder: Path) -> None:
    record = submitted(server, folder, "--gpu-ids", "4,5")
    assert record["profile"].startswith("a40-2")
    assert (record["resources"]["gpu_ids"], record["resources"]["gpu_type"]) == (["4", "5"], "a40")
    assert record["resources"]["mixed"] is False
    record = submitted(server, folder, "--gpu-ids", "3,6", "--mixed", "--profile", "gpu-2")
    assert (record["resources"]["gpu_ids"], record["resources"]["gpu_type"]) == (["3", "6"], None)
    assert record["resources"]["mixed"] is True


def test_a_type_decides_and_a_number_too(server: Cli, folder: Path) -> None:
    record = submitted(server, folder, "--gpu-type", "A800", "--gpus", "2")
    assert record["profile"].startswith("a800-2")
    assert (record["resources"]["gpu_type"], record["resources"]["gpus_per_node"]) == ("a800", 2)
    record = submitted(server, folder, "--gpu-type", "a40", "--profile", "gpu-1")
    assert (record["profile"], record["resources"]["gpu_type"]) == ("gpu-1", "a40")


def test_an_open_profile_asks_for_a_card_that_is_large_enough(server: Cli, folder: Path) -> None:
    small = submitted(server, folder, "--profile", "gpu-1")["resources"]
    assert small["gpu_type"] is None and 0 < small["gpu_memory"] < 40 * 2**30
    whole = ("--set", "model.adapter=none", "--set", "model.model_name_or_path=Qwen/Qwen2.5-3B-Instruct")
    large = submitted(server, folder, "--profile", "gpu-1", *whole)["resources"]
    assert large["gpu_type"] is None and 45 * 2**30 < large["gpu_memory"] < 80 * 2**30


def test_the_runs_of_a_sweep_ask_for_a_card_that_holds_the_greediest(server: Cli, folder: Path) -> None:
    alone = submitted(server, folder, "--profile", "gpu-1", "--set", "model.lora.r=64")["resources"]
    answer = server("submit", "--json", "--profile", "gpu-1", "--sweep", "model.lora.r=8,64")
    assert answer.code == 0, answer.err
    sets = ("--set", "model.adapter=none", "--set", "model.model_name_or_path=Qwen/Qwen2.5-7B-Instruct")
    dry = server("submit", *sets, "--profile", "a40-1", "--sweep", "optim.seed=1,2,3", "--dry-run")
    notes = [line for line in dry.err.splitlines() if "does not fit" in line]
    assert len(notes) == 1 and "mine-0 and 2 more: does not fit" in notes[0]
    records = [Path(run["run_dir"]) / "record.json" for run in answer.json["data"]["runs"]]
    asked = [json.loads(path.read_text(encoding="utf-8"))["resources"]["gpu_memory"] for path in records]
    assert asked == [alone["gpu_memory"]] * 2


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--gpu-ids", "0,4"], 4, ["A800", "A40", "--mixed"]),
        (["--gpu-ids", "0,9"], 4, ["'9' is not one of this machine's"]),
        (["--gpu-ids", "0,0"], 2, ["no list of different GPUs"]),
        (["--gpu-ids", ""], 2, ["no list of different GPUs"]),
        (["--gpu-ids", "0", "--gpu-type", "a40"], 4, ["GPU 0 is of type a800"]),
        (["--gpu-ids", "0,1", "--gpus", "3"], 2, ["--gpu-ids names 2"]),
        (["--gpu-ids", "0,1", "--profile", "a800-4"], 2, ["has 4 GPUs", "ask for 2"]),
        (["--gpu-ids", "4", "--profile", "a800-1"], 2, ["is for a800, and a40 is asked for"]),
        (["--gpu-ids", "0", "--scheduler", "slurm"], 2, ["Slurm chooses the cards"]),
        (["--mixed"], 2, ["add --gpu-ids"]),
        (["--gpus", "0"], 2, ["asks for no GPU", "--profile cpu"]),
        (["--gpus", "-1"], 2, ["--gpus -1 is no number of GPUs"]),
        (["--gpus", "99999999999"], 2, ["is no number of GPUs"]),
        (["--gpus", "5"], 4, ["5 GPUs together", "a800: 1 node with 4", "a40: 1 node with 4"]),
        (["--gpus", "many"], 2, ["many"]),
        (["--gpu-type", "a8000"], 2, ["unknown type of GPU 'a8000'", "a800"]),
        (["--gpu-type", "h100"], 4, ["no H100", "a800: 1 node with 4"]),
        (["--gpu-type", "a40", "--profile", "a800-4-zero3"], 2, ["is for a800, and a40 is asked for"]),
        (["--gpu-type", "a40", "--profile", "cpu"], 2, ["cpu has no GPUs"]),
        (["--profile", "a800-8"], 4, ["8 a800 on one node", "a800: 1 node with 4"]),
    ],
)
def test_what_cannot_be_is_refused(server: Cli, folder: Path, words: list[str], code: int, said: list[str]) -> None:
    answer = server("submit", "--dry-run", *words)
    assert (answer.code, answer.out, "Traceback" in answer.err) == (code, "", False), answer
    assert not [part for part in said if part not in answer.err], answer.err
    assert not (folder / "logs").exists()


def test_an_old_file_that_names_a_type_gets_it(server: Cli, recipe: Path, folder: Path) -> None:
    text = recipe.read_text(encoding="utf-8")
    recipe.write_text(f"{text}gpu_type: A800\nn_gpus_per_node: 2\n", encoding="utf-8")
    record = submitted(server, folder)
    assert record["profile"].startswith("a800-2")
    recipe.write_text(f"{text}gpu_ids: [0, 1]\n", encoding="utf-8")
    answer = server("submit", "--dry-run")
    assert (answer.code, "say --gpu-ids 0,1,4,5 on the command line" in answer.err) == (2, True), answer.err


def test_auto_is_any_type(server: Cli) -> None:
    one, other = (server("submit", "--dry-run", "--gpus", "1", *words) for words in ([], ["--gpu-type", "auto"]))
    assert one.code == 0, one.err
    assert one.out == other.out


def test_without_any_gpu_it_is_the_profile_cpu(cli: Cli, recipe: Path) -> None:
    recipe.write_text(recipe.read_text(encoding="utf-8").replace("profile: cpu\n", ""), encoding="utf-8")
    [plan] = cli("plan", str(recipe), "--json").json["data"]["plans"]
    assert plan["profile"] == "cpu"


def test_memory_is_spoken_of_before_the_job_waits(server: Cli) -> None:
    whole = ("--set", "model.adapter=none", "--set", "model.model_name_or_path=Qwen/Qwen2.5-7B-Instruct")
    # However much memory the machine of this test has.
    plenty = ("--profile", "a40-1", "--set", "profile.mem=500G")
    answer = server("submit", "--dry-run", *plenty, *whole)
    assert answer.code == 0
    assert "does not fit, by estimate: needs" in answer.err and "an A40 has 44.4" in answer.err
    answer = server("submit", "--dry-run", "--profile", "a40-1", "--set", "model.model_name_or_path=own/thing")
    assert "memory not estimated: nothing is known here of the model" in answer.err
    assert "memory" not in server("submit", "--dry-run", *plenty).err
