"""Many submissions while slurmctld is stopped, hung and woken at random, and what has to be true afterwards."""

from __future__ import annotations

import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.project import Answer, Project
from tests.slurm.box import Box, until
from tests.slurm.stand_in import last_job, run_dirs

ANSWER_LIMIT = 120.0
IN_FLIGHT = 120
"""Seconds after which a lost hand-over cannot arrive any more (``runs/status.py``)."""


def trouble(box: Box, dice: random.Random, going_on: Callable[[], bool]) -> tuple[int, int]:
    """Stop or hang slurmctld for a random time, again and again; returns how often each. Then wait until it answers.

    In the main thread: the kernel ends daemons together with the thread that started them.
    """
    stops = hangs = 0
    while going_on():
        time.sleep(dice.uniform(1.0, 5.0))
        if dice.random() < 0.5:
            stops += 1
            box.stop_controller()
            time.sleep(dice.uniform(0.0, 3.0))
            box.start_controller()
        else:
            hangs += 1
            box.hang_controller()
            # Beyond 3 s a look gives up, beyond 9 s sbatch does.
            longest = dice.choices((3.0, 9.0, 14.0), weights=(6, 2, 1))[0]
            time.sleep(dice.uniform(longest / 2, longest))
            box.resume_controller()
    until(lambda: " is UP" in box.command("scontrol", "ping", check=False).stdout, "slurmctld to answer")
    return stops, hangs


@dataclass(frozen=True)
class Outcome:
    """``wanted``: the run of each submission. ``answers``: how often each kind of answer came."""

    wanted: list[str]
    answers: Counter[str]
    stops: int
    hangs: int


def submit_all(
    box: Box,
    project: Project,
    count: int,
    *,
    workers: int,
    dice: random.Random,
    cli: Callable[..., Answer] = Project.cli,
) -> Outcome:
    """Submit so many runs as a patient person does, while slurmctld comes and goes.

    "nothing was submitted" means: type it again. "do not submit again" means: its record will tell.
    """
    answers: Counter[str] = Counter()

    def one(number: int) -> str:
        while True:
            answer = cli(project, "submit", "mine.yaml", "--name", f"n{number}", "--json", timeout=ANSWER_LIMIT)
            text = answer.out + answer.err
            if answer.code == 0:
                answers["submitted"] += 1
                return str(answer.json["data"]["runs"][0]["run_id"])
            assert answer.code == 3 and "Traceback" not in text, f"exit code {answer.code}: {text}"
            if "do not submit again" in text:
                answers["answer lost"] += 1
                [run_id] = set(re.findall(r"clusterctl status (\S+?)`", text))
                return run_id
            answers["nothing submitted, typed again"] += 1
            time.sleep(1.5)

    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(one, number) for number in range(count)]
        stops, hangs = trouble(box, dice, lambda: not all(future.done() for future in futures))
        return Outcome([future.result() for future in futures], answers, stops, hangs)


def settle(project: Project, *, wait: bool) -> int:
    """Ask for every run until the truth about all is known; resume what never arrived. Returns how many those were.

    Without ``wait`` the records are made to look old instead of waiting until nothing can be on its way any more.
    """
    lost = [run_dir for run_dir in run_dirs(project) if last_job(run_dir)["job_id"] is None]
    if lost and wait:
        time.sleep(IN_FLIGHT + 5)
    found = project.cli("status", "--all", "--json", timeout=ANSWER_LIMIT)
    assert found.code == 0, found.err
    never = [run_dir for run_dir in lost if last_job(run_dir)["job_id"] is None]
    for run_dir in never:
        if not wait:
            _make_old(run_dir)
        answer = project.cli("resume", run_dir.name, timeout=ANSWER_LIMIT)
        assert answer.code == 0, answer.out + answer.err
    return len(never)


def _make_old(run_dir: Path) -> None:
    path = run_dir / "record.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    record["jobs"][-1]["requested_at"] -= 300
    path.write_text(json.dumps(record), encoding="utf-8")


def check(box: Box, project: Project, wanted: list[str]) -> None:
    """No job twice, none lost, no record without its job, no job without its record."""
    lines = box.command("squeue", "-h", "-t", "all", "-o", "%i|%k|%Z").stdout.splitlines()
    jobs = {}
    for line in lines:
        job_id, comment, folder = line.split("|", 2)
        if folder.startswith(f"{project.folder}/"):
            jobs[job_id] = (comment.split(":")[1], comment.split(":")[2])
    twice = [run for run, number in Counter(run for run, _ in jobs.values()).items() if number > 1]
    assert not twice, f"jobs twice: {twice}"
    records = {run_dir.name: last_job(run_dir) for run_dir in run_dirs(project)}
    assert set(records) == set(wanted) and len(wanted) == len(set(wanted)), "records that nobody wanted, or too few"
    known = {run: (job["job_id"], job["token"]) for run, job in records.items()}
    assert known == {run: (job_id, token) for job_id, (run, token) in jobs.items()}
