"""The commands while Slurm is down, hangs, loses an answer or has forgotten a job. No job here trains."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.project import Answer, Project, Run
from tests.slurm.box import Box, until
from tests.slurm.client import fake_command
from tests.slurm.stand_in import finish, finish_all, last_job, make_stand_in_project, queued, run_dirs, with_commands

IN_TIME = 15
"""Seconds within which every command answers, whatever Slurm does. ``subprocess`` ends the test beyond them."""

DOWN = "slurmctld) is down"
HANGS = "slurmctld) does not answer"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Box]:
    """A cluster of our own, whose controller comes to harm; it forgets ended jobs within seconds."""
    box = Box(min_job_age=2)
    try:
        box.up()
        yield box
    finally:
        box.down()


@pytest.fixture
def project(cluster: Box, tmp_path: Path) -> Iterator[Project]:
    project = make_stand_in_project(tmp_path / "a'; echo foo $(x)", cluster)
    yield project
    finish_all(project)


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    """A folder for fake commands; ``with_commands`` puts it on PATH."""
    folder = tmp_path / "commands"
    folder.mkdir()
    return folder


def answers(box: Box) -> bool:
    return " is UP" in box.command("scontrol", "ping", check=False).stdout


@contextmanager
def down(box: Box) -> Iterator[str]:
    """slurmctld does not run; yields what is to be said of that."""
    box.stop_controller()
    try:
        yield DOWN
    finally:
        box.start_controller()
        until(lambda: answers(box), "slurmctld to answer")


@contextmanager
def hung(box: Box) -> Iterator[str]:
    """slurmctld takes connections and says nothing; yields what is to be said of that."""
    box.hang_controller()
    with woken(box):
        yield HANGS


@contextmanager
def woken(box: Box) -> Iterator[None]:
    """A hung slurmctld goes on afterwards."""
    try:
        yield
    finally:
        box.resume_controller()
        until(lambda: answers(box), "slurmctld to answer")


silent = pytest.mark.parametrize("silence", [down, hung], ids=["down", "hung"])
Silence = Callable[[Box], Any]


def listed(project: Project, *words: str) -> dict[str, dict[str, Any]]:
    """``status --all`` as a program sees it, by run."""
    answer = project.cli("status", "--all", *words, "--json", timeout=IN_TIME)
    assert answer.code == 0, answer.out + answer.err
    return {one["record"]["run_id"]: one for one in answer.json["data"]["runs"]}


def the_only_run(project: Project, answer: Answer) -> Run:
    """The run that a submission left behind although it failed; its hint names it."""
    [run_dir] = run_dirs(project)
    assert f"clusterctl status {run_dir.name}" in answer.err
    return Run(project, run_dir.name, "", run_dir)


def forge_job(run: Run, **changes: object) -> None:
    """Change the newest hand-over in the record."""
    path = run.run_dir / "record.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    record["jobs"][-1].update(changes)
    path.write_text(json.dumps(record), encoding="utf-8")


@silent
def test_submit_to_a_silent_slurm_leaves_nothing_behind(project: Project, cluster: Box, silence: Silence) -> None:
    with silence(cluster) as words:
        answer = project.cli("submit", "mine.yaml", timeout=IN_TIME)
    assert answer.code == 3, answer.err
    assert f"{words}; nothing was submitted" in answer.err
    assert run_dirs(project) == []
    assert queued(cluster, project) == []

    run = project.submit()
    assert queued(cluster, project) == [run.job_id]


def test_slurm_hangs_just_when_sbatch_asks_and_the_job_is_found_later(
    project: Project, cluster: Box, commands: Path
) -> None:
    """What sbatch sent lies in the socket, and slurmctld reads it when it wakes."""
    fake_command(commands, "sbatch", f'kill -STOP {cluster.pid("slurmctld")}; exec "$REAL" "$@"')
    with woken(cluster):
        answer = with_commands(project, commands).cli("submit", "mine.yaml", timeout=IN_TIME)
        assert answer.code == 3, answer.err
        assert "not known whether the job was queued" in answer.err
        run = the_only_run(project, answer)
        assert last_job(run.run_dir)["job_id"] is None
        again = project.cli("resume", run.run_id, timeout=IN_TIME)
        assert (again.code, HANGS in again.err) == (3, True), again.err

    until(lambda: queued(cluster, project), "slurmctld to read what sbatch sent")
    run.wait_for("RUNNING")
    assert queued(cluster, project) == [last_job(run.run_dir)["job_id"]]
    again = project.cli("resume", run.run_id)
    assert (again.code, "needs no resuming" in again.err) == (5, True), again.err
    assert len(queued(cluster, project)) == 1
    finish(run)


def test_an_sbatch_that_never_reached_slurm_is_safe_to_resume(project: Project, cluster: Box, commands: Path) -> None:
    error = "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)"
    fake_command(commands, "sbatch", f'echo "{error}" >&2; exit 1')
    answer = with_commands(project, commands).cli("submit", "mine.yaml", timeout=IN_TIME)
    assert answer.code == 3, answer.err
    run = the_only_run(project, answer)
    now = project.state(run.run_id)
    assert (now["state"], "may still arrive" in now["why"]) == ("UNKNOWN", True), now
    assert project.cli("resume", run.run_id).code == 3
    assert queued(cluster, project) == []

    forge_job(run, requested_at=time.time() - 300)
    now = project.state(run.run_id)
    assert (now["state"], "clusterctl resume submits it again" in now["why"]) == ("UNKNOWN", True), now
    assert project.cli("resume", run.run_id).code == 0
    assert queued(cluster, project) == [last_job(run.run_dir)["job_id"]]
    finish(run)


def test_an_answer_of_sbatch_that_was_lost_is_found_by_its_token(
    project: Project, cluster: Box, commands: Path
) -> None:
    log = commands / "log"
    error = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"
    fake_command(commands, "sbatch", f'echo x >> "{log}"; "$REAL" "$@" >/dev/null; echo "{error}" >&2; exit 1')
    answer = with_commands(project, commands).cli("submit", "mine.yaml", "--json", timeout=IN_TIME)
    assert answer.code == 0, answer.out
    assert log.read_text() == "x\n"
    [run_dir] = run_dirs(project)
    assert queued(cluster, project) == [last_job(run_dir)["job_id"]] == [answer.json["data"]["runs"][0]["job_id"]]


@silent
def test_a_silent_slurm_makes_active_runs_unknown_and_no_others(
    project: Project, cluster: Box, silence: Silence
) -> None:
    ended, running = project.submit(), project.submit()
    waiting = project.submit("--after", running.run_id)
    finish(ended)
    running.wait_for("RUNNING")
    with silence(cluster) as words:
        # Answers of the last five seconds are good enough for a look.
        until(lambda: listed(project)[running.run_id]["state"] == "UNKNOWN", "the truth to be out of date")
        now = listed(project)
        assert now[ended.run_id]["state"] == "COMPLETED"
        assert now[waiting.run_id]["state"] == "UNKNOWN"
        assert all(words in now[run.run_id]["why"] for run in (running, waiting))
        table = project.cli("status", timeout=IN_TIME)
        assert (table.code, words in table.out) == (0, True), table.err
        for command in ("cancel", "resume"):
            answer = project.cli(command, running.run_id, timeout=IN_TIME)
            assert (answer.code, words in answer.out + answer.err) == (3, True), answer.out + answer.err

    until(lambda: project.state(running.run_id)["state"] == "RUNNING", "the truth")
    now = listed(project)
    assert [now[run.run_id]["state"] for run in (ended, running, waiting)] == ["COMPLETED", "RUNNING", "PENDING"]
    assert project.cli("cancel", waiting.run_id).code == 0


def kill_outright(box: Box, run: Run) -> None:
    """End the script of a running job with SIGKILL, so that it says no last word; scancel would send TERM first."""
    run.wait_for_step(1)
    run.wait_for("RUNNING")  # a look, so that there is something last seen
    script = f"{box.folder}/spool/cpu-1/job{int(run.job_id):05}/slurm_script".encode()
    found = [process for process in Path("/proc").glob("[0-9]*") if script in command_line(process)]
    [pid] = [int(process.name) for process in found]
    os.kill(pid, signal.SIGKILL)


def command_line(process: Path) -> bytes:
    with suppress(OSError):  # it has ended meanwhile
        return (process / "cmdline").read_bytes()
    return b""


def wait_until_forgotten(box: Box, *runs: Run) -> None:
    """Wait until MinJobAge has passed."""
    for run in runs:
        until(lambda run=run: not box.state(run.job_id), f"job {run.job_id} to leave the queue")


def test_without_accounting_the_jobs_own_words_outlive_slurms_memory(project: Project, cluster: Box) -> None:
    good, killed = project.submit(), project.submit()
    finish(good)
    kill_outright(cluster, killed)
    wait_until_forgotten(cluster, good, killed)
    assert project.state(good.run_id)["state"] == "COMPLETED"
    now = project.state(killed.run_id)
    assert now["state"] == "UNKNOWN", now
    assert "last seen RUNNING" in now["why"]
    assert [line["event"] for line in killed.attempts] == ["begin"]

    assert project.cli("resume", killed.run_id).code == 0
    finish(killed)


def test_with_accounting_a_killed_job_is_what_sacct_says(slurm_accounting: Box, tmp_path: Path) -> None:
    project = make_stand_in_project(tmp_path / "project", slurm_accounting)
    good, killed = project.submit(), project.submit()
    finish(good)
    kill_outright(slurm_accounting, killed)
    wait_until_forgotten(slurm_accounting, good, killed)
    until(lambda: project.state(killed.run_id)["state"] != "UNKNOWN", "accounting to catch up")
    said = slurm_accounting.command("sacct", "-n", "-X", "-P", "-o", "State", "-j", killed.job_id).stdout.split()[0]
    assert said in ("FAILED", "CANCELLED")
    assert project.state(killed.run_id)["state"] == said
    assert project.state(good.run_id)["state"] == "COMPLETED"


def test_a_recycled_job_id_is_not_taken_for_ours(project: Project, cluster: Box) -> None:
    """The record of a run from another time names an id that today another run has, or a job that is none of ours."""
    now, old = project.submit(), project.submit()
    now.wait_for("RUNNING")
    foreign = cluster.submit("sleep 300", "--output=/dev/null", cwd=old.run_dir)
    cluster.wait_for(foreign, "RUNNING")
    assert project.cli("cancel", old.run_id).code == 0
    (old.run_dir / "cancelled.json").unlink()
    for job_id, requested_at in ((now.job_id, time.time()), (foreign, time.time() + 1000)):
        forge_job(old, job_id=job_id, requested_at=requested_at)
        assert_not_ours(cluster, old, job_id)
    cluster.command("scancel", foreign)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run another user's jobs in a private Slurm")
def test_another_users_job_is_not_taken_for_ours(project: Project, cluster: Box) -> None:
    run = project.submit()
    finish(run)
    (run.run_dir / "attempts.jsonl").unlink()
    folder = cluster.folder / run.run_id
    folder.mkdir(0o777)
    theirs = cluster.submit("sleep 300", "--output=/dev/null", cwd=folder, user="nobody")
    cluster.wait_for(theirs, "RUNNING")
    forge_job(run, job_id=theirs)
    assert_not_ours(cluster, run, theirs)
    cluster.command("scancel", theirs)


def assert_not_ours(box: Box, run: Run, job_id: str) -> None:
    """The job of that id runs, and neither its state nor a cancellation has to do with the run."""
    shown = run.project.state(run.run_id)
    assert (shown["state"], "does not know" in shown["why"]) == ("UNKNOWN", True), shown
    assert "has ended already" in run.project.cli("cancel", run.run_id).out
    assert box.state(job_id) == "RUNNING"
