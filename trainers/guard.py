"""The crash-loop guard around every attempt of a run: ``python -m trainers.guard begin|end RUN_DIR [EXIT ASKED]``.

``job.sh`` calls ``begin`` before and ``end`` after the trainer. A run goes on by itself when it stopped on purpose
(saved) and got further than where its attempt began, or when it failed of something that the table of failures
(trainers/failures) holds to be worth another try. Standard library only, so that it answers at once and also in a
broken environment.

begin   removes ``stop``, notes the attempt in ``attempts.jsonl``, prints its number. Where the attempt before could
        not say how it ended (power, preemption, a requeue), that is found out now and noted too.
        A change of the run (trainers.fixes) starts a new count.
        Exit 1 when the last attempts of this job made no progress.
end     notes how the attempt ended, of what cause, and what follows; ASKED is USR1, TERM or PREEMPTED, or empty.
        Adds to ``bad_nodes`` the node that is to blame, which job.sh keeps the next attempt from; changes a run that
        ran out of memory where it may (trainers.fixes). Tells whoever wanted to know (trainers.notify).
        Exit 0 done, 85 run me again, else the failure.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainers import fixes, notify
from trainers.runtime import checkpoints
from trainers.runtime.files import append_line, read_json, read_lines

SAVED = 85
"""Exit code of a trainer that stopped on purpose with a checkpoint: "saved, continue me"."""

STOPPED = 143
"""128 + TERM, as a shell says it: saved, and not to be continued by itself."""

FRUITLESS_LIMIT = 3
"""So many attempts of one job without a newer checkpoint end it: requeueing would repeat the same crash."""

FRUITLESS = f"{FRUITLESS_LIMIT} attempts of this job in a row made no checkpoint: not started again"


def begin(run_dir: Path, job_id: str) -> int | None:
    """Note a new attempt and return its number, or None when this job has failed too often in a row.

    A new job (a resume by hand has a new id) and a run by hand (no id) start with a clean count:
    a person has looked at it.
    """
    (run_dir / "stop").unlink(missing_ok=True)
    path = run_dir / "attempts.jsonl"
    lines = read_lines(path)
    begun = [line for line in lines if line.get("event") == "begin"]
    newest = checkpoints.newest_step(run_dir)
    changed = max((int(line.get("attempt", 0)) for line in lines if "fix" in line), default=0)
    same_job = [line for line in begun if job_id and line.get("job_id") == job_id]
    recent = [line for line in same_job if int(line.get("attempt", 0)) > changed][-FRUITLESS_LIMIT:]
    if len(recent) == FRUITLESS_LIMIT and recent[0].get("checkpoint") == newest:
        # What the last attempt left says that it goes on.
        refused = {"time": time.time(), "exit_code": 1, "outcome": "failed", "decision": "stop", "why": FRUITLESS}
        append_line(path, {"schema": 1, "event": "end", "attempt": recent[-1]["attempt"], **refused})
        return None
    number = 1 + max((int(line.get("attempt", 0)) for line in begun), default=0)
    line: dict[str, Any] = {"schema": 1, "event": "begin", "attempt": number, "job_id": job_id}
    if begun and lines[-1] is begun[-1]:
        line["before"] = _cut_short(run_dir, begun[-1], job_id)
    if torn := checkpoints.torn(run_dir):
        line["torn"] = torn
    append_line(
        path,
        {
            **line,
            "host": os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
            "time": time.time(),
            "checkpoint": newest,
            "oom_kills": _oom_kills(),
        },
    )
    return number


def end(run_dir: Path, exit_code: int, asked: str = "") -> tuple[int, str]:
    """Note the end of the last attempt. Returns the exit code for the job script and the reason in words.

    Only USR1, the warning before the time limit, and preemption lead to another attempt. After a mere TERM
    it is not known who wants what: going on would undo a cancellation.
    """
    path = run_dir / "attempts.jsonl"
    lines = read_lines(path)
    begun = [line for line in lines if line.get("event") == "begin"]
    last: dict[str, Any] = begun[-1] if begun else {"attempt": 1, "checkpoint": None}
    newest = checkpoints.newest_step(run_dir)
    outcome, decision, why = _decide(last, read_json(run_dir / "progress.json"), exit_code, newest, asked)
    line = {"schema": 1, "event": "end", "attempt": last["attempt"], "time": time.time(), "exit_code": exit_code}
    if outcome == "failed":
        from trainers.failures import policy

        killed = _oom_kills() > last.get("oom_kills", sys.maxsize)
        failed = policy.look(run_dir, exit_code, _own_words(run_dir, last), out_of_memory=killed)
        again = asked not in ("TERM", "INT") and policy.tries_again(failed, lines, newest)
        line["cause"], why = failed.cause.name, failed.words or why
        if asked in _CAUSES and failed.cause.weight in ("vague", "echo"):
            # It was told to end before it could listen, and what launchers say of that is no cause.
            line["cause"] = _asked_by(run_dir, asked)
        if not again and asked not in ("TERM", "INT") and last.get("job_id"):
            again, why = _change(run_dir, line, why)
            decision = "requeue" if again else decision
        elif again:
            decision, why = "requeue", f"{why}; tried again{policy.without_node(failed.cause, run_dir)}"
    elif outcome == "saved":
        line["cause"] = _asked_by(run_dir, asked)
    append_line(path, {**line, "outcome": outcome, "decision": decision, "why": why})
    if decision == "done":
        return 0, why
    if decision == "requeue":
        return SAVED, why
    if outcome == "saved":
        return STOPPED, why
    # A failure must never look like success or like "run me again".
    return (exit_code if exit_code not in (0, SAVED) else 1), why


def _oom_kills() -> int:
    """Processes of our control group that the kernel has killed for want of memory. Of a whole node it would not do:
    the next job's memory is no word about ours."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, kinds, path = line.split(":", 2)
            places = {"": "/memory.events", "memory": "/memory.oom_control"}
            file = Path(f"/sys/fs/cgroup/{kinds}{path}{places.get(kinds, '')}")
            if kinds in places and file.is_file():
                counters = dict(counter.split() for counter in file.read_text(encoding="ascii").splitlines())
                return int(counters.get("oom_kill", 0))
    return 0


def _change(run_dir: Path, line: dict[str, Any], why: str) -> tuple[bool, str]:
    """Whether the run was changed so that it is worth another attempt, and why it goes on or not. Notes the change."""
    rung = fixes.take(run_dir, line["cause"], line["attempt"])
    if isinstance(rung, str):
        return False, f"{why} {rung}".rstrip()
    line["fix"] = rung.words
    return True, f"{why}; tried again with {rung.words}"


_CAUSES = {"USR1": "time_limit", "PREEMPTED": "preempted", "TERM": "stopped", "INT": "stopped"}


def _asked_by(run_dir: Path, asked: str) -> str:
    """The name of the cause why a run was told to save and stop.

    For a mere TERM that is what Slurm writes into the log, or the note that ``clusterctl cancel`` leaves.
    """
    from trainers.failures import policy

    if (cause := _CAUSES.get(asked, "stopped")) != "stopped":
        return cause
    if (run_dir / "cancelled.json").exists():
        return "cancelled"
    found = policy.look(run_dir, 0, "").cause
    return found.name if asked and found.weight == "scheduler" else cause


def _cut_short(run_dir: Path, last: Mapping[str, Any], job_id: str) -> dict[str, str]:
    """Why an attempt left no last word: Slurm's line in the log, or its silence."""
    from trainers.failures import CAUSES, policy

    found = policy.look(run_dir, 128 + signal.SIGKILL, "").cause
    if found.weight in ("vague", "echo") and job_id and last.get("job_id") == job_id:
        # Slurm says in the log why it takes a job away, but for a node that is gone.
        found = CAUSES["node_failure"]
    return {"cause": found.name, "why": found.title}


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


def _own_words(run_dir: Path, last: Mapping[str, Any]) -> str:
    """What the trainer of the last attempt said of its own failure; empty when it could not."""
    progress = read_json(run_dir / "progress.json")
    return str(progress.get("error") or "") if progress.get("attempt") == last["attempt"] else ""


def _tell(run_dir: Path) -> None:
    """Tell how the last attempt ended."""
    lines = read_lines(run_dir / "attempts.jsonl")
    facts: dict[str, Any] = {
        key: lines[-1][key] for key in ("attempt", "exit_code", "cause", "why", "fix") if key in lines[-1]
    }
    stopped = (lines[-1]["outcome"], lines[-1]["decision"]) == ("saved", "stop")
    _send(run_dir, "stopped" if stopped else notify.EVENTS[lines[-1]["decision"]], facts)


def _tell_of_the_one_before(run_dir: Path) -> None:
    """Tell that the run goes on, where the attempt before had no last word."""
    lines = read_lines(run_dir / "attempts.jsonl")
    if before := lines[-1].get("before"):
        _send(run_dir, "requeued", {"attempt": lines[-1]["attempt"], **before})


def _send(run_dir: Path, event: str, facts: Mapping[str, Any]) -> None:
    job_id, host = os.environ.get("CLUSTERCTL_JOB_ID", ""), os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    if problem := notify.send(run_dir, event, job_id=job_id, host=host, **facts):
        print(f"guard: {problem}", file=sys.stderr)


def main(arguments: list[str]) -> int:
    """The command line. Returns the exit code."""
    try:
        return _run(arguments)
    except OSError as e:  # a full disk: what must be noted cannot be
        words = f"guard: {e.filename or 'attempts.jsonl'}: {e.strerror}"
        print(f"{words}\nhint: make room or correct the permissions, then resume the run", file=sys.stderr)
        return 1


def _run(arguments: list[str]) -> int:
    match arguments:
        case ["begin", run_dir]:
            number = begin(Path(run_dir), os.environ.get("CLUSTERCTL_JOB_ID", ""))
            if number is None:
                hint = "read the end of logs/job.err, mend the cause, then resume the run"
                print(f"guard: {FRUITLESS}\nhint: {hint}", file=sys.stderr)
                _send(Path(run_dir), "failed", {"why": FRUITLESS})  # its last word was that it is queued again
                return 1
            print(number)
            _tell_of_the_one_before(Path(run_dir))
            return 0
        case ["end", run_dir, exit_code, asked] if exit_code.isdigit():
            code, why = end(Path(run_dir), int(exit_code), asked)
            print(f"guard: {why}", flush=True)
            _tell(Path(run_dir))
            return code
    print(__doc__.splitlines()[0], file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
