"""A sweep on this machine without Slurm: real training, so many at a time, compared afterwards."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.project import Project, make_project
from tests.slurm.box import until


@pytest.fixture
def project(tiny_model: Path, tmp_path: Path) -> Project:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "CLUSTERCTL"))}
    return make_project(tmp_path / "a'; echo foo", env, tiny_model, "local")


def test_so_many_at_a_time_and_the_best_comes_first(project: Project) -> None:
    sets = ("--set", "data.validation_split=0.2", "--set", "eval.eval_steps=6")
    answer = project.cli(
        "submit", "mine.yaml", *sets, "--sweep", "optim.learning_rate=1e-30,5e-3,1e-3", "--parallel", "2", "--json"
    )
    assert answer.code == 0, answer.err
    name, runs = answer.json["data"]["sweep"], answer.json["data"]["runs"]
    waiting: list[str] = []

    def done() -> bool:
        looks = project.cli("status", name, "--json").json["data"]["runs"]
        waiting.extend(one["why"] for one in looks if one["state"] == "PENDING")
        assert not any(one["state"] == "FAILED" for one in looks), looks
        return all(one["state"] == "COMPLETED" for one in looks)

    until(done, "the sweep to finish", timeout=200)
    assert any(f"waiting for other runs of {name}: 2 at a time" in why for why in waiting), waiting

    spans = []
    for run in runs:
        lines = (Path(run["run_dir"]) / "attempts.jsonl").read_text(encoding="utf-8").splitlines()
        begin, end = (json.loads(line)["time"] for line in lines)
        spans.append((begin, end))
    together = [sum(begin <= at < end for begin, end in spans) for at, _ in spans]
    assert max(together) == 2, spans

    found = project.cli("compare", name, "--json").json["data"]
    assert found["keys"] == ["optim.learning_rate"] and found["by"] == "eval_loss_after"
    assert [row["values"]["optim.learning_rate"] for row in found["runs"]] == [5e-3, 1e-3, 1e-30]
    best, _, still = (row["results"] for row in found["runs"])
    assert best["eval_loss_after"] < best["eval_loss_before"] and best["loss_last"] < best["loss_first"]
    assert still["eval_loss_after"] == pytest.approx(still["eval_loss_before"])
    assert still["seconds_per_step"] > 0 and still["peak_memory"] > 0

    page = project.cli("compare", name, "--by", "loss_last", COLUMNS="80")
    assert page.out.startswith("3 runs, lowest loss_last first") and max(map(len, page.out.split("\n"))) <= 80
    wrong = project.cli("compare", name, "--by", "eval_los")
    assert (wrong.code, "did you mean eval_loss" in wrong.err) == (2, True)
    assert project.cli("compare", runs[0]["run_id"]).code == 2
    two = project.cli("compare", runs[0]["run_id"], runs[1]["run_id"], "--json").json["data"]
    assert [row["run_id"] for row in two["runs"]] == [runs[1]["run_id"], runs[0]["run_id"]]
