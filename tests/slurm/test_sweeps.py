"""Sweeps on a real Slurm: one job array, a record for each of its runs. A stand-in stands in for the trainer."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.project import Project
from tests.slurm.box import Box, until
from tests.slurm.client import count_calls, fake_command
from tests.slurm.conftest import BoxFactory
from tests.slurm.stand_in import make_stand_in_project, with_commands

_TRAINER = """\
#!/bin/bash
# In the place of the Python that trains: fails, saves and asks for more, or ends well, as the run's files say.
[[ $1 == -m && $2 == trainers ]] || exec {python} "$@"
say() {{
    printf '{{"schema":1,"attempt":%s,"phase":"%s","step":%s,"max_steps":12}}' "$CLUSTERCTL_ATTEMPT" "$1" "$2" > new
    mv new progress.json
}}
say training 3
until [[ -e go || -e stop ]]; do sleep 0.1; done
saved=checkpoints/checkpoint-4
[[ ! -e stop ]] || {{ mkdir -p $saved; echo '{{}}' > $saved/COMPLETE; say saved 4; exit; }}
[[ ! -e broken ]] || {{ echo "ValueError: broken" >&2; exit 1; }}
say finished 12
"""
FOUR = ("--sweep", "optim.learning_rate=1e-4,5e-5", "--sweep", "optim.seed=1,2")


def make(folder: Path, box: Box) -> Project:
    project = make_stand_in_project(folder, box)
    python = folder.parent / "stand-in"
    python.write_text(_TRAINER.format(python=shlex.quote(sys.executable)), encoding="utf-8")
    return project


@pytest.fixture
def project(slurm: Box, tmp_path: Path) -> Project:
    return make(tmp_path / "a'; echo foo", slurm)


def sweep(project: Project, *words: str) -> tuple[str, list[Path]]:
    answer = project.cli("submit", "mine.yaml", *words, "--json")
    assert answer.code == 0, answer.out + answer.err
    data = answer.json["data"]
    return data["sweep"], [Path(run["run_dir"]) for run in data["runs"]]


def states(project: Project, name: str) -> list[str]:
    return [one["state"] for one in looks(project, name)]


def looks(project: Project, name: str) -> list[dict[str, Any]]:
    answer = project.cli("status", name, "--json")
    assert answer.code == 0, answer.err
    return list(answer.json["data"]["runs"])


def test_one_array_with_a_limit_and_a_record_for_each_run(project: Project, slurm: Box) -> None:
    name, members = sweep(project, *FOUR, "--parallel", "2")
    records = [json.loads((member / "record.json").read_text(encoding="utf-8")) for member in members]
    assert [record["run_id"] for record in records] == [f"{name}-{n}" for n in range(4)]
    assert [record["swept"] for record in records] == [
        [f"optim.learning_rate={rate}", f"optim.seed={seed}"] for rate in ("1e-4", "5e-5") for seed in (1, 2)
    ]
    [array] = {record["jobs"][-1]["job_id"].partition("_")[0] for record in records}
    until(lambda: states(project, name) == ["RUNNING"] * 2 + ["PENDING"] * 2, "two of four to run")
    assert "other tasks" in looks(project, name)[2]["why"]
    running = slurm.command("squeue", "-h", "-r", "-j", array, "-t", "R", "-o", "%i").stdout.split()
    assert sorted(running) == [f"{array}_0", f"{array}_1"]

    shown = project.cli("status").out
    assert "4 runs: 2 PENDING, 2 RUNNING; varies optim.learning_rate, optim.seed" in " ".join(shown.split())
    assert f"{name} " in shown and f"{name}-0" not in shown and f"{name}-3" in project.cli("status", name).out

    for member in members:
        assert len({path.parent for path in members}) == 1 and (member / "run.yaml").is_file()
        (member / "go").touch()
    until(lambda: set(states(project, name)) == {"COMPLETED"}, "the sweep to finish")
    for member, record in zip(members, records, strict=True):
        assert f"job {record['jobs'][-1]['job_id']} " in (member / "logs/job.out").read_text(encoding="utf-8")


def test_a_failed_run_is_resumed_alone_and_one_by_hand(project: Project, slurm: Box) -> None:
    name, members = sweep(project, *FOUR)
    for broken in members[1:3]:
        (broken / "broken").touch()
    for member in members:
        (member / "go").touch()
    until(lambda: states(project, name) == ["COMPLETED", "FAILED", "FAILED", "COMPLETED"], "two to fail")
    for broken in members[1:3]:
        (broken / "broken").unlink()
    again = project.cli("resume", members[1].name, "--json")
    assert again.code == 0 and "_" not in again.json["data"]["job_id"]
    until(lambda: states(project, name) == ["COMPLETED", "COMPLETED", "FAILED", "COMPLETED"], "one to be resumed")
    resumed = project.cli("resume", name, "--json")
    assert resumed.code == 0, resumed.err
    assert [run["run_id"] for run in resumed.json["data"]["runs"]] == [members[2].name]
    until(lambda: set(states(project, name)) == {"COMPLETED"}, "all to have finished")
    assert "has failed or was cancelled" in project.cli("resume", name).err
    assert [len((m / "attempts.jsonl").read_text(encoding="utf-8").splitlines()) for m in members] == [2, 4, 4, 2]

    by_hand = slurm.command("sbatch", "--parsable", "job.sh", cwd=members[0]).stdout.strip()
    slurm.wait_for(by_hand, "COMPLETED")


def test_requeue_and_warning_of_one_task_leave_the_others_alone(project: Project, slurm: Box) -> None:
    """The last task above all: its own number is the array's."""
    name, members = sweep(project, "--sweep", "optim.seed=1,2")
    until(lambda: states(project, name) == ["RUNNING"] * 2, "both to run")
    until(lambda: all((member / "progress.json").exists() for member in members), "both to train")
    job = json.loads((members[1] / "record.json").read_text(encoding="utf-8"))["jobs"][-1]["job_id"]
    slurm.command("scancel", "--signal=USR1", "--batch", job)
    attempts = members[1] / "attempts.jsonl"
    until(lambda: '"requeue"' in attempts.read_text(encoding="utf-8"), "the task to ask for its return", 100)
    until(lambda: len(attempts.read_text(encoding="utf-8").splitlines()) == 3, "the task to begin again", 150)
    assert len((members[0] / "attempts.jsonl").read_text(encoding="utf-8").splitlines()) == 1
    assert states(project, name) == ["RUNNING"] * 2
    for member in members:
        (member / "go").touch()
    until(lambda: set(states(project, name)) == {"COMPLETED"}, "both to finish")


def test_cancel_ends_all_and_one_squeue_serves_all(project: Project, slurm: Box, commands: Path) -> None:
    name, members = sweep(project, *FOUR, "--parallel", "1")
    until(lambda: "RUNNING" in states(project, name), "one to run")
    calls = count_calls(commands)
    counted = with_commands(project, commands)
    assert project.cli("cancel", members[3].name).code == 0
    counted.cli("status", name)
    assert calls.read_text(encoding="utf-8").split() == ["squeue"]
    calls.write_text("", encoding="utf-8")
    ended = counted.cli("cancel", name)
    assert ended.code == 0 and ended.out.count("cancelled while") == 3 and "ended already" in ended.out
    assert calls.read_text(encoding="utf-8").split().count("scancel") == 1
    until(lambda: set(states(project, name)) == {"CANCELLED"}, "all to end")
    assert not (members[2] / "attempts.jsonl").exists()


def test_a_sweep_that_slurm_refuses_leaves_nothing(slurm_box: BoxFactory, tmp_path: Path) -> None:
    project = make(tmp_path / "p", slurm_box(extra="MaxArraySize=4"))
    answer = project.cli("submit", "mine.yaml", "--sweep", "optim.seed=1,2,3,4,5")
    assert answer.code == 5 and "Invalid job array" in answer.err and "MaxArraySize" in answer.err, answer.err
    assert not list((project.folder / "logs").glob("*"))
    name, members = sweep(project, "--sweep", "optim.seed=1,2,3,4")
    assert len(members) == 4 and re.fullmatch(r"\d+_3", looks(project, name)[3]["record"]["jobs"][-1]["job_id"])
    assert project.cli("cancel", name).code == 0


def test_nothing_is_submitted_where_one_run_is_wrong(project: Project) -> None:
    cases = {
        ("optim.learning_rat=1,2",): "did you mean optim.learning_rate?",
        ("optim.learning_rate=1e-4,much",): "much",
        ("optim.learning_rate=1e-4,0.0001",): "twice",
        ("optim.seed=1",): "of one run",
        ("optim.seed",): "not key=value",
        ("profile.time=1:00:00,2:00:00",): "one sweep for each profile",
        (f"optim.seed={','.join(map(str, range(300)))}",): "300 runs",
    }
    for words, said in cases.items():
        answer = project.cli("submit", "mine.yaml", *(w for word in words for w in ("--sweep", word)))
        assert answer.code == 2 and said in answer.err and "Traceback" not in answer.err, answer.err
        assert "--set optim" not in answer.err
    assert project.cli("submit", "mine.yaml", *FOUR, "--parallel", "0").code == 2
    assert project.cli("submit", "mine.yaml", "--parallel", "2").code == 2
    both = project.cli("submit", "mine.yaml", "--set", "optim.seed=1", "--sweep", "optim.seed=2,3")
    assert both.code == 2 and "say it once" in both.err
    assert not list((project.folder / "logs").glob("*"))
    dry = project.cli("submit", "mine.yaml", *FOUR, "--parallel", "3", "--dry-run")
    assert dry.code == 0 and "#SBATCH --array=0-3%3\n" in dry.out


def test_accounting_tells_the_runs_of_an_array_apart(slurm_accounting: Box, tmp_path: Path) -> None:
    """After Slurm's queue has forgotten them: one that ran, one that was cancelled before it did."""
    project = make(tmp_path / "p", slurm_accounting)
    name, members = sweep(project, "--sweep", "optim.seed=1,2", "--parallel", "1")
    until(lambda: states(project, name) == ["RUNNING", "PENDING"], "one of two to run")
    jobs = [json.loads((m / "record.json").read_text(encoding="utf-8"))["jobs"][-1]["job_id"] for m in members]
    slurm_accounting.command("scancel", jobs[1])
    slurm_accounting.command("scancel", "--signal=KILL", "--full", jobs[0])
    until(lambda: not slurm_accounting.state(jobs[1]) and not slurm_accounting.state(jobs[0]), "both to be forgotten")
    until(lambda: states(project, name) in (["FAILED", "CANCELLED"], ["CANCELLED"] * 2), "accounting to tell", 60)
    assert [one["gone"] for one in looks(project, name)] == [True, True]


def test_an_array_whose_answer_was_lost_is_found_by_its_token(project: Project, slurm: Box, commands: Path) -> None:
    fake_command(commands, "sbatch", '"$REAL" "$@" > /dev/null; echo "Socket timed out on send/recv" >&2; exit 1')
    name, _ = sweep(with_commands(project, commands), "--sweep", "optim.seed=1,2", "--parallel", "1")
    until(lambda: states(project, name) == ["RUNNING", "PENDING"], "one of two to run")
    assert len({one["record"]["jobs"][0]["job_id"].partition("_")[0] for one in looks(project, name)}) == 1
    assert project.cli("cancel", name).code == 0
