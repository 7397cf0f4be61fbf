"""The crash-loop guard around every attempt of a run: ``python -m trainers.guard begin|end RUN_DIR [EXIT ASKED]``.

``job.sh`` calls ``begin`` before and ``end`` after the trainer. A run goes on by itself only when it stopped
on purpose (saved) and got further than where its attempt began. Standard library only, so that it answers
at once and also in a broken environment.

begin   removes ``stop``, notes the attempt in ``attempts.jsonl``, prints its number.
        Exit 1 when the last attempts of this job made no progress.
end     notes how the attempt ended and what follows; ASKED is USR1, TERM or PREEMPTED, or empty.
        Exit 0 done, 85 run me again, else the failure.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainers.runtime import checkpoints
from trainers.runtime.files import append_line, read_json, read_lines

SAVED = 85
"""Exit code of a trainer that stopped on purpose with a checkpoint: "saved, continue me"."""

STOPPED = 143
"""128 + TERM, as a shell says it: saved, and not to be continued by itself."""

FRUITLESS_LIMIT = 3
"""So many attempts of one job without a newer checkpoint end it: requeueing would repeat the same crash."""


def begin(run_dir: Path, job_id: str) -> int | None:
    """Note a new attempt and return its number, or None when this job has failed too often in a row.

    A new job (a resume by hand has a new id) and a run by hand (no id) start with a clean count:
    a person has looked at it.
    """
    (run_dir / "stop").unlink(missing_ok=True)
    path = run_dir / "attempts.jsonl"
    begun = [line for line in read_lines(path) if line.get("event") == "begin"]
    newest = checkpoints.newest_step(run_dir)
    same_job = [line for line in begun if job_id and line.get("job_id") == job_id]
    recent = same_job[-FRUITLESS_LIMIT:]
    if len(recent) == FRUITLESS_LIMIT and recent[0].get("checkpoint") == newest:
        return None
    number = 1 + max((int(line.get("attempt", 0)) for line in begun), default=0)
    line = {"schema": 1, "event": "begin", "attempt": number, "job_id": job_id}
    append_line(
        path,
        {
            **line,
            "host": os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
            "time": time.time(),
            "checkpoint": newest,
        },
    )
    return number


def end(run_dir: Path, exit_code: int, asked: str = "") -> tuple[int, str]:
    """Note the end of the last attempt. Returns the exit code for the job script and the reason in words.

    Only USR1, the warning before the time limit, and preemption lead to another attempt. After a mere TERM
    it is not known who wants what: going on would undo a cancellation.
    """
    path = run_dir / "attempts.jsonl"
    begun = [line for line in read_lines(path) if line.get("event") == "begin"]
    last: dict[str, Any] = begun[-1] if begun else {"attempt": 1, "checkpoint": None}
    newest = checkpoints.newest_step(run_dir)
    outcome, decision, why = _decide(last, read_json(run_dir / "progress.json"), exit_code, newest, asked)
    line = {"schema": 1, "event": "end", "attempt": last["attempt"], "time": time.time(), "exit_code": exit_code}
    append_line(path, {**line, "outcome": outcome, "decision": decision, "why": why})
    if decision == "done":
        return 0, why
    if decision == "requeue":
        return SAVED, why
    if outcome == "saved":
        return STOPPED, why
    # A failure must never look like success or like "run me again".
    return (exit_code if exit_code not in (0, SAVED) else 1), why


def _decide(
    last: Mapping[str, Any], progress: Mapping[str, Any], exit_code: int, newest: int | None, asked: str
) -> tuple[str, str, str]:
    """Outcome, decision and reason. Launchers mask exit codes: what rank 0 wrote last is the truth."""
    phase = progress.get("phase") if progress.get("attempt") == last["attempt"] else None
    if phase == "finished":
        return "finished", "done", "training finished"
    if phase == "saved":
        if newest is None or newest <= (last.get("checkpoint") or 0):
            return "saved", "stop", "asked to stop before there was anything new to save"
        if asked in ("USR1", "PREEMPTED"):
            return "saved", "requeue", f"saved at step {newest}, to be continued"
        return "saved", "stop", f"asked to stop, saved at step {newest}"
    error = progress.get("error") if phase else None
    return "failed", "stop", error or f"the trainer ended with exit code {exit_code} and did not say why"


def main(arguments: list[str]) -> int:
    """The command line. Returns the exit code."""
    match arguments:
        case ["begin", run_dir]:
            number = begin(Path(run_dir), os.environ.get("CLUSTERCTL_JOB_ID", ""))
            if number is None:
                print(
                    f"guard: {FRUITLESS_LIMIT} attempts of this job in a row made no checkpoint: not started again\n"
                    "hint: read the end of logs/job.err, mend the cause, then resume the run",
                    file=sys.stderr,
                )
                return 1
            print(number)
            return 0
        case ["end", run_dir, exit_code, asked] if exit_code.isdigit():
            code, why = end(Path(run_dir), int(exit_code), asked)
            print(f"guard: {why}")
            return code
    print(__doc__.splitlines()[0], file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
