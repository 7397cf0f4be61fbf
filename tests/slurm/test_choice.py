"""Where a run goes when nobody says it, on a real queue: what ends first wins, and the reasons are kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.project import Answer, Project
from tests.slurm.box import Box, missing_programs, until
from tests.slurm.client import fake_command
from tests.slurm.stand_in import finish_all, make_stand_in_project, run_dirs, with_commands

SMALL, LARGE = "Qwen/Qwen2.5-1.5B-Instruct", "Qwen/Qwen2.5-72B-Instruct"
"""LoRA on the first fits every card; on the second, in 4 bits and with long rows, it fits an A800 and no A40."""

RECIPE = """\
stage: sft
model: {{model_name_or_path: {model}, quantization: 4bit}}
data: {{train_files: data.csv, max_length: {length}}}
optim: {{train_batch_size: 16, max_steps: 200}}
method: {{packing: {packing}}}
"""


@pytest.fixture(scope="module")
def busy() -> Iterator[Box]:
    """A cluster whose A800 are taken for the next five hours; its A40 are free."""
    if missing := missing_programs():
        pytest.fail(f"not installed: {', '.join(missing)}. `make slurm` installs what is needed", pytrace=False)
    box = Box()
    try:
        box.up()
        for _ in range(2):
            job = box.submit("sleep 1000", "-p", "a800", "--gpus-per-node=a800:4", "--time=5:00:00", cwd=box.folder)
            box.wait_for(job, "RUNNING")
        yield box
    finally:
        box.down()


@pytest.fixture
def project(busy: Box, tmp_path: Path) -> Iterator[tuple[Box, Project]]:
    """The cluster, and a user with two recipes whom it has told nothing yet."""
    made = make_stand_in_project(tmp_path / "a'; echo foo", busy)
    for name, model, length, packing in (("small", SMALL, 512, "false"), ("large", LARGE, 4096, "true")):
        text = RECIPE.format(model=model, length=length, packing=packing)
        (made.folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    site = made.folder / "clusterctl.yaml"
    text = site.read_text(encoding="utf-8").replace("{cpu: cpu}", "{cpu: cpu, a800: a800, a40: a40}")
    site.write_text(text, encoding="utf-8")
    yield busy, made
    finish_all(made)


def planned(answer: Answer) -> dict[str, Any]:
    assert answer.code == 0, answer.out + answer.err
    [plan] = answer.json["data"]["plans"]
    return dict(plan)


def reasons(choice: dict[str, Any]) -> dict[str, str]:
    return {place["placement"]["profile"]: place["reason"] for place in choice["places"]}


def test_the_small_one_takes_what_is_free_and_the_large_one_waits_for_what_fits(
    project: tuple[Box, Project],
) -> None:
    _, user = project
    small = planned(user.cli("plan", "small.yaml", "--json"))
    assert small["profile"].startswith("a40-") and small["wait"] < 60
    assert small["verdict"]["fit"] == "fits" and small["in_time"]
    why = reasons(small["choice"])
    assert "it waits 4h 5" in why["a800-1"] or "it waits 5h 00m" in why["a800-1"]

    large = planned(user.cli("plan", "large.yaml", "--json"))
    assert large["profile"].startswith("a800-") and 4.9 * 3600 < large["wait"] <= 5 * 3600
    why = reasons(large["choice"])
    assert why["a40-1"].startswith("does not fit: needs ") and "an A40 has 44." in why["a40-1"]

    # A person reads the same.
    seen = user.cli("plan", "small.yaml").out
    assert f"Chosen: {small['profile']}, which ends " in seen and "Slurm's estimate" in seen
    assert "start earlier" not in seen


def test_a_drained_card_is_no_candidate_and_it_says_so(project: tuple[Box, Project]) -> None:
    box, user = project
    box.command("scontrol", "update", "nodename=gpu-a40-1", "state=drain", "reason=fan [red]broken")
    small = planned(user.cli("plan", "small.yaml", "--json"))
    assert small["profile"].startswith("a800-") and small["wait"] > 4 * 3600
    assert small["choice"]["notes"][-1] == "4 of 4 A40 take no work: gpu-a40-1 is drained (fan [red]broken)"
    assert not any(name.startswith("a40") for name in reasons(small["choice"]))
    seen = user.cli("plan", "small.yaml").out
    assert "4 of 4 A40 take no work" in seen
    assert "a shorter one may start earlier: --set profile.time=0-01:00:00" in " ".join(seen.split())
    box.command("scontrol", "update", "nodename=gpu-a40-1", "state=resume")
    argv = ("sinfo", "-h", "-n", "gpu-a40-1", "-p", "a40", "-o", "%T")
    until(lambda: box.command(*argv).stdout.strip() == "idle", "the A40 to come back")


def test_what_is_submitted_is_what_was_chosen_and_the_reasons_are_kept(project: tuple[Box, Project]) -> None:
    _, user = project
    run = user.submit(recipe="small.yaml")
    choice = json.loads((run.run_dir / "choice.json").read_text(encoding="utf-8"))
    record = json.loads((run.run_dir / "record.json").read_text(encoding="utf-8"))
    assert choice["schema"] == 1 and choice["profile"] == record["profile"]
    assert record["resources"]["gpu_type"] == "a40" and record["resources"]["partition"] == "a40"
    assert choice["reason"].startswith("ends ") and reasons(choice)["a800-1"].startswith("ends ")
    run.wait_for("RUNNING")
    # Who names a profile has chosen.
    named = user.submit("--profile", "a800-1", recipe="small.yaml")
    assert not (named.run_dir / "choice.json").exists()


def test_a_question_for_each_request_and_none_again_within_a_minute(
    project: tuple[Box, Project], tmp_path: Path
) -> None:
    _, user = project
    folder = tmp_path / "fakes"
    folder.mkdir()
    log = folder / "calls"
    for name in ("sbatch", "sinfo", "squeue"):
        fake_command(folder, name, f'printf "%s\\n" "{name} $*" >> "{log}"\nexec "$REAL" "$@"')
    watched = with_commands(replace(user, env={**user.env, "XDG_CACHE_HOME": str(folder)}), folder)
    plan = planned(watched.cli("plan", "small.yaml", "--json"))
    lines = log.read_text(encoding="utf-8").splitlines()
    questions = [line for line in lines if line.startswith("sbatch")]
    assert all("--test-only" in line for line in questions)
    assert len(set(questions)) == len(questions) <= 12
    asked = [place for place in plan["choice"]["places"] if place["placement"]["start"]]
    assert 2 <= len(questions) <= len(asked)
    assert [line.split()[0] for line in lines if line not in questions] == ["sinfo"]
    watched.cli("plan", "small.yaml", "--json")
    again = [line for line in log.read_text(encoding="utf-8").splitlines() if line.startswith("sbatch")]
    assert again == questions, "answers of the last minute serve"
    assert not run_dirs(user)


def test_a_silent_queue_makes_the_start_unknown(project: tuple[Box, Project], tmp_path: Path) -> None:
    _, user = project
    folder = tmp_path / "fakes"
    folder.mkdir()
    fake_command(folder, "sbatch", "echo 'sbatch: error: Socket timed out on send/recv operation' >&2; exit 1")
    plan = planned(with_commands(user, folder).cli("plan", "small.yaml", "--json"))
    assert (plan["wait"], plan["finish"]) == (None, None)
    assert {place["wait"] for place in plan["choice"]["places"]} == {None}
    text = with_commands(user, folder).cli("plan", "small.yaml").out
    assert "start       not known: Socket timed out" in text


def test_a_limit_of_the_partition_is_told_before_it_waits_for_ever(project: tuple[Box, Project]) -> None:
    _, user = project
    site = user.folder / "clusterctl.yaml"
    site.write_text(site.read_text(encoding="utf-8").replace("a40: a40", "a40: debug"), encoding="utf-8")
    small = planned(user.cli("plan", "small.yaml", "--json"))
    assert small["profile"].startswith("a800-")
    assert reasons(small["choice"])["a40-1"] == (
        "its time limit 1d 0h is more than partition debug allows, 30m 00s: --set profile.time=0-00:30:00"
    )
