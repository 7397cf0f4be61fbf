"""Submissions killed between the first file and the confirmed job id: nothing is lost, nothing doubled."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.project import Project
from tests.slurm.box import Box, until
from tests.slurm.conftest import BoxFactory
from tests.slurm.stand_in import last_job, make_stand_in_project, run_dirs
from tests.slurm.submitting import check

TIMES = 30


def start_forked(project: Project, *words: str) -> int:
    """``clusterctl`` in a child process of this one, which has loaded it already. Returns its process id."""
    from clusterctl import cli
    from clusterctl.runs import plan, submit  # noqa: F401  (loaded here once)

    pid = os.fork()
    if pid:
        return pid
    try:
        os.chdir(project.folder)
        os.environ.clear()
        os.environ.update(project.env)
        nothing = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(nothing, fd)
        sys.argv = ["clusterctl", *words]
        cli.main()
    finally:
        os._exit(0)


def kill_one(project: Project, number: int, dice: random.Random) -> None:
    """Kill a submission some milliseconds after its directory, its record or its token has appeared."""
    before = set(run_dirs(project))
    mark = dice.choice(("", "record.json", "record.json:token", "record.json:token"))
    pid = start_forked(project, "submit", "mine.yaml", "--name", f"n{number}")
    until(lambda: _shows(set(run_dirs(project)) - before, *mark.partition(":")[::2]), "the run directory")
    time.sleep(dice.choice((0.0, dice.uniform(0, 0.02), dice.uniform(0, 0.2))))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _shows(new: set[Path], name: str, word: str) -> bool:
    try:
        return any(not name or word in (run_dir / name).read_text(encoding="utf-8") for run_dir in new)
    except OSError:
        return False


def make_old(run_dir: Path) -> None:
    """As if all that was minutes ago, so that nothing can be on its way any more."""
    path = run_dir / "record.json"
    if path.exists():
        record = json.loads(path.read_text(encoding="utf-8"))
        for job in record["jobs"]:
            job["requested_at"] -= 300
        path.write_text(json.dumps(record), encoding="utf-8")
    os.utime(run_dir, (time.time() - 300, time.time() - 300))


def queue_is_quiet(box: Box) -> bool:
    """No sbatch of a killed submission is on its way any more."""
    commands = [_bytes(p) for p in Path("/proc").glob("[0-9]*/environ") if _is_sbatch(p.parent)]
    return not any(str(box.conf).encode() in one for one in commands)


def _bytes(path: Path) -> bytes:
    """What a process file holds; nothing when the process has gone meanwhile."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _is_sbatch(process: Path) -> bool:
    try:
        return (process / "comm").read_text().strip() == "sbatch"
    except OSError:
        return False


def test_a_killed_submission_is_finished_or_explained(
    slurm_box: BoxFactory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    box, dice = slurm_box(), random.Random(30)
    project = make_stand_in_project(tmp_path / "a'; echo foo", box)
    box.command("scontrol", "update", "NodeName=cpu-1", "State=DRAIN", "Reason=jobs shall wait")
    for number in range(TIMES):
        kill_one(project, number, dice)
    until(lambda: queue_is_quiet(box), "sbatch")

    seen: Counter[str] = Counter()
    for run_dir in run_dirs(project):
        make_old(run_dir)
    answer = project.cli("status", "--all", "--json")
    assert answer.code == 0, answer.err
    known = {one["record"]["run_id"]: one for one in answer.json["data"]["runs"]}
    problems = "\n".join(answer.json["data"]["problems"])
    for run_dir in run_dirs(project):
        name = run_dir.name
        if name not in known:
            seen["no record: explained"] += 1
            assert f"{name} has no record: its submission was cut short, and nothing was handed over" in problems
            said = project.cli("status", name)
            assert (said.code, "rm -r" in said.err) == (6, True), said
            for path in sorted(run_dir.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            run_dir.rmdir()
        elif known[name]["state"] == "PENDING":
            seen["job found" if known[name]["record"]["jobs"][-1]["job_id"] else "PENDING without a job"] += 1
        else:
            seen["never handed over: resumed"] += 1
            assert "clusterctl resume submits it" in known[name]["why"], known[name]
            again = project.cli("resume", name)
            assert again.code == 0, again.err
    check(box, project, [run_dir.name for run_dir in run_dirs(project)])
    assert all(last_job(run_dir)["job_id"] for run_dir in run_dirs(project))
    with capsys.disabled():
        print(f"\n  {TIMES} submissions killed: {dict(seen)}")
    assert sum(seen.values()) == TIMES and len(seen) >= 2, seen
