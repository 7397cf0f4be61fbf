"""``clusterctl gpus`` on a real cluster: who waits for what, who holds what, and what own jobs do with it."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.project import Project, make_project
from tests.slurm.box import Box, until
from tests.slurm.client import fake_command

NVIDIA_SMI = """#!/bin/sh
echo "$*" >> "{log}"
[ -z "$SLOW" ] || sleep 60
for i in 0 1 2 3; do
    echo "$i, GPU-0000000$i, $((10 + i)), 40960, 81920, 55, 200.50, 300.00, NVIDIA A800 80GB PCIe"
done
"""


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    """A cluster of our own: these tests fill and drain it."""
    box = Box()
    try:
        box.up()
        yield box
    finally:
        box.down()


@pytest.fixture
def project(box: Box, tmp_path: Path) -> Iterator[Project]:
    commands = tmp_path / "commands"
    commands.mkdir()
    (commands / "nvidia-smi").write_text(NVIDIA_SMI.format(log=commands / "asked"), encoding="utf-8")
    (commands / "nvidia-smi").chmod(0o755)
    for name in ("sinfo", "squeue", "scontrol", "srun"):
        fake_command(commands, name, f'echo {name} >> "{commands}/calls"\nexec "$REAL" "$@"')
    project = make_project(tmp_path / "a'; echo foo", box.env, tmp_path)
    env = {**project.env, "PATH": f"{commands}:{project.env['PATH']}", "COLUMNS": "80"}
    yield replace(project, env=env)
    box.command("scancel", *box.command("squeue", "-h", "-o", "%A").stdout.split(), check=False)
    until(lambda: not box.command("squeue", "-h").stdout, "the queue to be empty")


def start(box: Box, folder: Path, *options: str, user: str | None = None) -> str:
    return box.submit("sleep 300", *options, cwd=folder, user=user)


def row(text: str, start: str) -> str:
    [line] = [one for one in (" ".join(line.split()) for line in text.splitlines()) if one.startswith(f"{start} ")]
    return line


def calls(project: Project) -> Counter[str]:
    return Counter((Path(project.env["PATH"].partition(":")[0]) / "calls").read_text().split())


def look(project: Project, *words: str) -> Any:
    answer = project.cli("gpus", "--json", *words)
    assert answer.code == 0, answer.out
    return answer.json["data"]


def test_what_waits_for_what_is_one_question(box: Box, project: Project, tmp_path: Path) -> None:
    full = start(box, tmp_path, "-p", "a40", "--gpus-per-node=a40:4")
    box.wait_for(full, "RUNNING")
    start(box, tmp_path, "-p", "a40", "--gpus=2", "--array=0-4")
    start(box, tmp_path, "-p", "a40", "--ntasks=3", "--gpus-per-task=a40:1", "--hold")
    start(box, tmp_path, "-p", "a800,a40", "-N2", "--gres=gpu:2", "--hold")
    start(box, tmp_path, "-p", "cpu", "--hold")
    until(lambda: "Resources" in box.command("squeue", "-h", "-o", "%r").stdout, "Slurm to look at the queue")

    text = project.cli("gpus").out
    assert calls(project) == {"scontrol": 1, "sinfo": 1, "squeue": 1}
    held = "held by its owner: `scontrol release` lets it go on"
    assert row(text, "a40 5") == "a40 5 10 5 waiting for free resources"
    assert row(text, "a40 1 3") == f"a40 1 3 1 {held}"
    assert row(text, "any") == f"any 1 4 1 {held}"
    assert "Waiting: 7 jobs of all users" in text
    assert max(map(len, text.splitlines())) <= 80
    assert "yours: " in text
    assert "srun" not in calls(project)


def test_drained_nodes_say_why(box: Box, project: Project) -> None:
    box.command("scontrol", "update", "nodename=gpu-a40-1", "state=drain", "reason=riser of card 2")
    try:
        text = project.cli("gpus").out
        assert row(text, "a40") == "a40 1 4 0 0 4"
        assert "gpu-a40-1 takes no new jobs: riser of card 2" in text
    finally:
        box.command("scontrol", "update", "nodename=gpu-a40-1", "state=resume")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")
def test_of_other_peoples_jobs_only_the_allocation_is_known(box: Box, project: Project, tmp_path: Path) -> None:
    job = start(box, tmp_path.parent, "-p", "a40", "--gpus-per-node=a40:3", "-D", "/", "-o", "/dev/null", user="nobody")
    box.wait_for(job, "RUNNING")
    text = project.cli("gpus", "--jobs").out
    assert row(text, job) == f"{job} nobody 3 x a40 gpu-a40-1"
    assert "Of other people's jobs only what Slurm gave them is known" in text
    assert "None of the running jobs with GPUs is yours." in text
    assert "srun" not in calls(project)


def test_live_use_inside_own_jobs(box: Box, project: Project, tmp_path: Path) -> None:
    """While the job's own step holds the cards; a task of an array too; only the job's cards, by their numbers."""
    busy = box.submit("srun sleep 300", "-p", "a800", "-N2", "--gpus-per-node=a800:1", cwd=tmp_path)
    array = start(box, tmp_path, "-p", "a800", "--gpus-per-node=a800:2", "--array=7-7")
    box.wait_for(busy, "RUNNING")
    box.wait_for(array, "RUNNING")
    until(lambda: f"{busy}.0" in box.command("squeue", "-h", "-s", "-o", "%i").stdout, "the job's step")
    use = look(project, "--jobs")["use"]
    cards = {(one["job_id"], one["node"]): [gpu["index"] for gpu in one["gpus"]] for one in use}
    assert [one["problem"] for one in use] == [None] * 3
    assert len(cards[(busy, "gpu-a800-1")]) == len(cards[(busy, "gpu-a800-2")]) == 1
    [(_, node)] = [key for key in cards if key[0] == f"{array}_7"]
    assert len(cards[(f"{array}_7", node)]) == 2
    assert not set(cards[(busy, node)]) & set(cards[(f"{array}_7", node)])
    gpu = use[0]["gpus"][0]
    assert (gpu["utilization"], gpu["memory_used"]) == (10 + gpu["index"], 40 * 1024**3)
    assert calls(project)["srun"] == 3
    assert {one["run_id"] for one in use} == {""}


def test_a_node_that_hangs_keeps_nobody_waiting(box: Box, project: Project, tmp_path: Path) -> None:
    for _ in range(3):
        box.wait_for(start(box, tmp_path, "-p", "a800", "--gpus-per-node=a800:1"), "RUNNING")
    began = time.monotonic()
    answer = project.cli("gpus", "--jobs", "--json", SLOW="1")
    assert time.monotonic() - began < 3 * 8, "one after the other"
    assert [one["problem"] for one in answer.json["data"]["use"]] == ["nvidia-smi took more than 8 s"] * 3
    until(lambda: ".0" not in box.command("squeue", "-h", "-s", "-o", "%i").stdout, "our steps to be gone")


def test_watching_asks_once_in_ten_seconds(box: Box, project: Project) -> None:
    watching = project.start("gpus", "--watch", "--json")
    time.sleep(3)
    watching.terminate()
    out, _ = watching.communicate(timeout=10)
    assert watching.returncode == 143
    assert len(out.splitlines()) == 1
    assert calls(project) == {"scontrol": 1, "sinfo": 1, "squeue": 1}
