"""Runs that were moved: another output root, a renamed home, a root behind a link. Real training goes on bit-equal."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.project import Project, Run, make_project
from tests.slurm.box import until

LONG = ("--set", "optim.max_steps=150", "--set", "output.save_steps=20", "--set", "output.save_total_limit=5")


@pytest.fixture
def project(tiny_model: Path, tmp_path: Path) -> Project:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "CLUSTERCTL"))}
    return make_project(tmp_path / "a'; echo foo", env, tiny_model, "local")


def set_root(project: Project, root: str) -> None:
    """Name another output root in the site file."""
    site = project.folder / "clusterctl.yaml"
    kept = [line for line in site.read_text(encoding="utf-8").splitlines() if not line.startswith("output_root")]
    site.write_text("\n".join([*kept, f"output_root: {json.dumps(root)}", ""]), encoding="utf-8")


def stopped(project: Project, step: int) -> Run:
    """A run that saved in its middle and waits to be resumed."""
    run = project.submit(*LONG)
    run.wait_for_step(step)
    (run.run_dir / "stop").touch()
    until(lambda: project.state(run.run_id)["state"] == "FAILED", "the stop")
    return run


def moved(run: Run, root: Path) -> Run:
    return Run(run.project, run.run_id, run.job_id, root / run.run_id)


def every_command_finds(project: Project, run: Run) -> None:
    """All that looks at a run works on it where it lies now."""
    state = project.state(run.run_id)
    assert (state["state"], Path(state["run_dir"])) == ("FAILED", run.run_dir), state
    assert "saved at step" in state["why"] and state["progress"]["step"] >= 20
    assert "=== attempt 1" in project.cli("tail", run.run_id, "--lines", "10000").out
    for words in (("diagnose", run.run_id), ("report", run.run_id)):
        answer = project.cli(*words)
        assert answer.code in (0, 1) and "Traceback" not in answer.err and run.run_id in answer.out, answer
    found = project.cli("diagnose", run.run_id, "--json").json["data"]
    assert Path(found["file"]).is_relative_to(run.run_dir), found
    target = project.folder / f"{run.run_id}.tar.gz"
    target.unlink(missing_ok=True)
    answer = project.cli("archive", run.run_id)
    assert answer.code == 0, answer.err
    with tarfile.open(target) as packed:
        assert f"{run.run_id}/run.yaml" in packed.getnames()
    shown = project.cli("prune", run.run_id, "--keep", "1", "--dry-run", "--json")
    assert shown.code == 0, shown.err
    going = [Path(one["path"]) for one in shown.json["data"]["planned"]]
    assert going and all(path.is_relative_to(run.run_dir) for path in going), going


def test_another_output_root_and_one_behind_a_link(project: Project) -> None:
    """Stopped, moved with the whole root, resumed, stopped, moved once more behind a link, resumed: bit-equal."""
    whole = project.submit(*LONG)
    whole.wait_for("COMPLETED")
    run = stopped(project, 45)
    new = project.folder / 'b "$x 新'
    (project.folder / "logs").rename(new)
    assert project.cli("status", run.run_id).code == 6
    set_root(project, str(new))
    run = moved(run, new)
    every_command_finds(project, run)
    answer = project.cli("resume", run.run_id)
    assert answer.code == 0, answer.err
    run.wait_for_step(90)
    (run.run_dir / "stop").touch()
    until(lambda: project.state(run.run_id)["state"] == "FAILED", "the stop")

    disk = project.folder / "disk2"
    new.rename(disk)
    new.symlink_to(disk)
    assert project.cli("resume", run.run_id).code == 0
    run.wait_for("COMPLETED")
    assert [line["event"] for line in run.attempts] == ["begin", "end"] * 3
    assert [line["checkpoint"] is None for line in run.attempts[::2]] == [True, False, False]
    assert run.weights == moved(whole, disk).weights
    for path in (path for path in run.run_dir.iterdir() if path.suffix in (".json", ".jsonl")):
        lines = path.read_text(encoding="utf-8")
        for text in lines.splitlines() if path.suffix == ".jsonl" else [lines]:
            assert json.loads(text)["schema"] == 1, path
    assert "schema_version: 1" in (run.run_dir / "run.yaml").read_text(encoding="utf-8")


def test_a_renamed_home_is_explained_before_anything_is_submitted(project: Project) -> None:
    """Data, and the adapter of an earlier run, bear old names in ``run.yaml``; the way out that is named works."""
    first = project.submit()
    first.wait_for("COMPLETED")
    recipe = project.folder / "mine.yaml"
    start = f"model:\n  adapter_name_or_path: {json.dumps(str(first.run_dir / 'final_model'))}"
    recipe.write_text(recipe.read_text(encoding="utf-8").replace("model:", start), encoding="utf-8")
    run = stopped(project, 20)
    old, new = project.folder, project.folder.with_name("renamed")
    old.rename(new)
    home = Project(new, {**project.env, "HOME": str(new / "home")})
    answer = home.cli("resume", run.run_id)
    assert answer.code == 2, answer
    adapter = f"logs/{first.run_id}/final_model"
    assert f"data.train_files: {old}/data.csv (now {new}/data.csv)" in answer.err
    assert f"model.adapter_name_or_path: {old}/{adapter} (now {new}/{adapter})" in answer.err
    assert len(home.state(run.run_id)["record"]["jobs"]) == 1
    link = answer.err.partition("ln -s ")[2].partition("\n")[0]
    subprocess.run(["ln", "-s", *shlex.split(link)], check=True)
    answer = home.cli("resume", run.run_id)
    assert answer.code == 0, answer.err
    Run(home, run.run_id, "", new / "logs" / run.run_id).wait_for_step(25)
    until(lambda: home.state(run.run_id)["state"] == "COMPLETED", "the end", timeout=120)
