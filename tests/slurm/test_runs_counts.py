"""How often the commands ask Slurm: 200 runs and five terminals cost it as much as one."""

from __future__ import annotations

import json
import secrets
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.project import Project, Run
from tests.slurm.box import Box
from tests.slurm.client import count_calls
from tests.slurm.stand_in import finish, finish_all, make_stand_in_project, with_commands

TERMINALS = 5


@pytest.fixture
def project(slurm_accounting: Box, tmp_path: Path) -> Iterator[Project]:
    project = make_stand_in_project(tmp_path / "a'; echo foo", slurm_accounting)
    yield project
    finish_all(project)


def counted(project: Project, folder: Path) -> tuple[Project, Path]:
    """The project for a user whom Slurm has told nothing yet, and the file with the names of the commands called."""
    folder.mkdir()
    fresh = replace(project, env={**project.env, "XDG_CACHE_HOME": str(folder)})
    return with_commands(fresh, folder), count_calls(folder)


def calls(log: Path) -> Counter[str]:
    return Counter(log.read_text().split())


def forge(run: Run, count: int) -> list[Path]:
    """Copies of the run as it is, from another time: other run ids, job ids and tokens."""
    forged = []
    for number in range(count):
        run_dir = run.run_dir.with_name(f"forged-{number:03}-{run.run_id}")
        shutil.copytree(run.run_dir, run_dir)
        record = json.loads((run_dir / "record.json").read_text(encoding="utf-8"))
        job = {"job_id": str(4_000_000 + number), "token": secrets.token_hex(8)}
        record |= {"run_id": run_dir.name, "jobs": [{**record["jobs"][-1], **job}]}
        (run_dir / "record.json").write_text(json.dumps(record), encoding="utf-8")
        attempts = run_dir / "attempts.jsonl"
        attempts.write_text(attempts.read_text().replace(f'"job_id": "{run.job_id}"', f'"job_id": "{job["job_id"]}"'))
        forged.append(run_dir)
    return forged


def lose_answer(run_dir: Path) -> None:
    """The record of a hand-over, long ago, of which nobody knows whether it arrived."""
    record = json.loads((run_dir / "record.json").read_text(encoding="utf-8"))
    record["jobs"][-1] |= {"job_id": None, "requested_at": 1e9}
    (run_dir / "record.json").write_text(json.dumps(record), encoding="utf-8")


def states(answer: str) -> Counter[str]:
    return Counter(one["state"] for one in json.loads(answer)["data"]["runs"])


def test_200_runs_in_one_terminal_and_in_five_cost_one_squeue_and_one_sacct(project: Project, tmp_path: Path) -> None:
    ended, running = project.submit(), project.submit()
    waiting = [project.submit("--after", running.run_id) for _ in range(3)]
    finish(ended)
    running.wait_for_step(1)  # Slurm says RUNNING before the script has written a line
    forge(ended, 100)
    forge(running, 95)
    shown = {"COMPLETED": 101, "RUNNING": 1, "PENDING": 3, "UNKNOWN": 95}

    one, log = counted(project, tmp_path / "one")
    answer = one.cli("status", "--all", "--json")
    assert states(answer.out) == shown
    assert calls(log) == {"squeue": 1, "sacct": 1}

    five, log = counted(project, tmp_path / "five")
    terminals = [five.start("status", "--all", "--json") for _ in range(TERMINALS)]
    answers = [terminal.communicate(timeout=60)[0] for terminal in terminals]
    assert [states(answer) for answer in answers] == [shown] * TERMINALS
    assert calls(log) == {"squeue": 1, "sacct": 1}
    assert project.cli("cancel", *(run.run_id for run in waiting)).code == 0


def test_lost_hand_overs_are_looked_for_together(project: Project, tmp_path: Path) -> None:
    run = project.submit()
    run.wait_for_step(1)
    for run_dir in forge(run, 5):
        lose_answer(run_dir)
        (run_dir / "attempts.jsonl").unlink()
    watcher, log = counted(project, tmp_path / "one")
    answer = watcher.cli("status", "--json")
    assert states(answer.out) == {"RUNNING": 1, "UNKNOWN": 5}
    assert answer.out.count("resume submits it again") == 5
    assert calls(log) == {"squeue": 1, "sacct": 1}


def test_following_a_log_asks_no_more_than_once_in_eight_seconds(project: Project, tmp_path: Path) -> None:
    run = project.submit()
    run.wait_for_step(1)
    watcher, log = counted(project, tmp_path / "one")
    following = watcher.start("tail", "-f", run.run_id)
    with pytest.raises(subprocess.TimeoutExpired):
        following.wait(timeout=8)
    following.send_signal(signal.SIGINT)
    out, err = following.communicate(timeout=10)
    assert following.returncode == 130, err
    assert "=== attempt 1" in out
    assert calls(log) == {"squeue": 1}
