"""What a job does by itself after a failure. Decided in the job, from what lies on its disk."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trainers.failures.cause import Cause
from trainers.failures.diagnosis import UNKNOWN, Evidence, Finding, diagnose
from trainers.failures.search import CannotRead, candidates, went_on

LOGS = ("logs/job.err", "logs/job.out")
RETRIES = 2
"""So often a fault is tried again that may pass, such as a port in use or a network that failed."""

ECHO_RETRIES = 1
"""The same where only the silence of another process is known: each try may hang for parallel.ddp_timeout."""

BAD_NODES = "bad_nodes"
"""File of the run directory: the nodes that are to blame, a name a line."""


def look(run_dir: Path, exit_code: int, error: str, *, out_of_memory: bool = False) -> Finding:
    """The cause of the attempt that has just ended, with the words to tell it where there are any.

    Args:
        run_dir: the run's directory, in whose ``logs`` the attempt wrote.
        exit_code: of the trainer or its launcher.
        error: the trainer's own words for what happened; empty when it had none.
        out_of_memory: whether the kernel has killed one of our processes for want of memory since the attempt began.
    """
    lines = []
    for log in LOGS:
        try:
            lines += candidates(run_dir / log)
        except CannotRead:
            continue
    known = Evidence(state="FAILED", exit_code=exit_code, error=error, out_of_memory=out_of_memory)
    found = diagnose(lines, known, went_on)
    if found is None:
        return Finding(UNKNOWN, "a guess")
    told = f"{found.cause.title}: {found.words}" if found.words else ""
    return replace(found, words=error or told)


def tries_again(failed: Finding, attempts: Sequence[Mapping[str, Any]], newest: int | None) -> bool:
    """Whether the job goes on by itself.

    Args:
        failed: the attempt's cause.
        attempts: the lines of ``attempts.jsonl``, the last of which begins this attempt.
        newest: step of the newest complete checkpoint now.
    """
    begun = [line for line in attempts if line.get("event") == "begin"]
    if not begun or not begun[-1].get("job_id"):
        return False  # by hand: somebody is looking
    ours = {line.get("attempt") for line in begun if line.get("job_id") == begun[-1]["job_id"]}
    before = [
        line
        for line in attempts
        if line.get("attempt") in ours
        and (line.get("outcome"), line.get("decision")) == ("failed", "requeue")
        and "fix" not in line
    ]
    cause = failed.cause
    if cause.policy == "resume":
        return (newest or 0) > (begun[-1].get("checkpoint") or 0) or len(before) < RETRIES
    if cause.policy == "retry":
        return len(before) < (ECHO_RETRIES if cause.weight == "echo" else RETRIES)
    return False


def without_node(cause: Cause, run_dir: Path) -> str:
    """Note this node where it is to blame, for job.sh to keep the next attempt from it. Returns the words for it.

    Of several nodes it is not known which one it was, and none is noted.
    """
    node = os.environ.get("SLURMD_NODENAME")
    if not cause.node or not node or os.environ.get("SLURM_JOB_NUM_NODES") != "1":
        return ""
    with (run_dir / BAD_NODES).open("a", encoding="utf-8") as file:
        file.write(f"{node}\n")
    return f", not on {node}"
