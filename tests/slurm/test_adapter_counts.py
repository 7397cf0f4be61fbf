"""How often Slurm is asked: many jobs and many terminals cost as much as one."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from clusterctl.model import JobRef
from tests.slurm.box import Box
from tests.slurm.client import Client, count_calls

TERMINALS = 5
ASK = """
import sys
from pathlib import Path
from clusterctl.adapters.slurm import Slurm
from clusterctl.model import JobRef

refs = [JobRef(job_id, token, float(at), Path(folder)) for job_id, token, at, folder in
        (line.split("\\t") for line in sys.stdin.read().splitlines())]
jobs = Slurm().jobs(refs)
print(*sorted(job.state for job in jobs.values()))
"""


def forgotten(client: Client, count: int) -> list[JobRef]:
    """Jobs of another time."""
    return [JobRef(str(4000000 + i), f"t{i}", time.time() - 9e5, client.folder / f"r{i}") for i in range(count)]


def ask(refs: list[JobRef]) -> subprocess.Popen[str]:
    """A terminal that asks about the jobs."""
    asking = subprocess.Popen(
        [sys.executable, "-c", ASK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert asking.stdin is not None
    asking.stdin.write("\n".join(f"{r.job_id}\t{r.token}\t{r.submitted_at}\t{r.run_dir}" for r in refs))
    asking.stdin.close()
    return asking


def test_200_runs_in_five_terminals_are_one_squeue_and_one_sacct(
    slurm_accounting: Box, enter: Callable[[Box], Client], commands: Path
) -> None:
    client = enter(slurm_accounting)
    waiting, ended = client.submit("true", "--hold"), client.submit("exit 7")
    client.wait_until_forgotten(ended)
    refs = [waiting, ended, *forgotten(client, 198)]
    log = count_calls(commands)
    terminals = [ask(refs) for _ in range(TERMINALS)]
    answers = [(t.wait(timeout=60), t.stdout.read() if t.stdout else "") for t in terminals]
    assert answers == [(0, "FAILED PENDING\n")] * TERMINALS
    assert sorted(log.read_text().split()) == ["sacct", "squeue"]
    client.slurm.cancel([waiting])


def test_five_terminals_answer_in_time_when_slurm_hangs(slurm_accounting: Box, enter: Callable[[Box], Client]) -> None:
    client = enter(slurm_accounting)
    slurm_accounting.hang_controller()
    began = time.monotonic()
    try:
        terminals = [ask(forgotten(client, 200)) for _ in range(TERMINALS)]
        errors = [(t.wait(timeout=60), t.stderr.read() if t.stderr else "") for t in terminals]
    finally:
        slurm_accounting.resume_controller()
    assert time.monotonic() - began < 15
    assert all(code == 1 and "does not answer" in error for code, error in errors)
