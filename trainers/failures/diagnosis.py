"""From evidence to a cause: which sign came first, how sure it is, and what follows. Pure but for the log's lines."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from trainers.failures import CAUSES
from trainers.failures.cause import Cause
from trainers.failures.search import TRACEBACK, Line

Sure = Literal["certain", "likely", "a guess"]

_HARMLESS = re.compile(
    r"\b(WARNING|INFO|DEBUG|\w*Warning:|[Rr]etry(ing)?\b|[Ii]gnor(ed|ing)\b|[Ff]alling back|NCCL INFO)"
    r"|^\s*#|Exception ignored|\b[WIE] (tensorflow|external)/|Could not load dynamic library"
)
"""A program that warns and goes on. Slurm's and NCCL's errors never look like this."""

_EXCEPTION = re.compile(
    r"^(?:\[\w*rank\d+\]: ?|\d+: )?(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Timeout|Failure)(?:: |$)"
)
_RAISED = re.compile(r"^(?:.{0,99}?[\])]:? ?|\d+: )?[A-Za-z_][\w.]*(?:: |:? *$)")
"""How a traceback ends: the name of what was raised, whatever a launcher or a logger writes before it."""
_OWN = re.compile(r"^(?:error|clusterctl): (.+)$")

_BY_STATE = {
    "TIMEOUT": "time_limit",
    "DEADLINE": "time_limit",
    "PREEMPTED": "preempted",
    "NODE_FAIL": "node_failure",
    "BOOT_FAIL": "node_failure",
    "OUT_OF_MEMORY": "host_out_of_memory",
    "CANCELLED": "cancelled",
}
_BY_EXIT = {139: "segmentation_fault", 132: "illegal_instruction", 137: "killed", 127: "command_not_found"}
"""128 + signal, as a shell says it, and its 127 for a program that is not there."""

_BY_SIGNAL = {11: "segmentation_fault", 4: "illegal_instruction", 9: "killed"}
_ORDER = ("root", "scheduler", "vague", "echo")

UNKNOWN = Cause(
    "unknown", "nothing known stands in the log", "read the end of the log: `clusterctl tail {run}`", weight="vague"
)
EXCEPTION = Cause(
    "python_exception",
    "a Python program ended with an exception that is not in the table",
    "read the traceback above the quoted line; `clusterctl tail {run}`",
    weight="vague",
)
OWN = Cause("said_itself", "the run said why it ended", "do what the hint below the line says", weight="root")


@dataclass(frozen=True)
class Evidence:
    """What is known beside the logs. ``state`` is Slurm's word; ``error`` the trainer's own last word."""

    state: str = ""
    exit_code: int | None = None
    signal: int | None = None
    error: str = ""
    finished: bool = False
    out_of_memory: bool = False
    """The kernel has meanwhile killed a process of the job's control group for want of memory."""


@dataclass(frozen=True)
class Finding:
    """A cause, with the line that shows it where there is one."""

    cause: Cause
    sure: Sure
    line: Line | None = None
    words: str = ""


def diagnose(
    lines: Sequence[Line], evidence: Evidence, went_on: Callable[[Line], bool] = lambda _: False
) -> Finding | None:
    """The earliest root cause; None where nothing is wrong.

    ``lines`` come in the order of time, those of several logs one log after the other. ``went_on`` says of a line
    whether the run trained on after it.
    """
    if evidence.finished or evidence.state == "COMPLETED":
        return None
    if evidence.error and (said := classify(evidence.error)):
        return Finding(said, "certain", words=evidence.error)
    hits = [(cause, line) for line in lines if (cause := classify(line.text, raised=line.raised))]
    by_state = CAUSES.get(_BY_STATE.get(evidence.state, ""))
    for weight in _ORDER:
        if weight == "scheduler" and by_state:
            return Finding(by_state, "certain", _first(hits, by_state))
        for cause, line in hits:
            if cause.weight == weight and not went_on(line):
                if cause.name == "killed" and evidence.out_of_memory:
                    return Finding(CAUSES["host_out_of_memory"], "likely", line, line.text.strip())
                return Finding(cause, _sure(cause, evidence), line, line.text.strip())
        if weight == "vague" and evidence.error:
            return Finding(OWN, "certain", words=evidence.error)
    return _by_exit(evidence)


def classify(text: str, *, raised: bool = False) -> Cause | None:
    """The cause that one line shows; None for an ordinary line and for a mere warning.

    ``raised``: a traceback ends with it.
    """
    if _HARMLESS.search(text) and not text.startswith(("slurmstepd:", "srun:")):
        return None
    found = [cause for cause in CAUSES.values() if any(sign.matches(text) for sign in cause.signs)]
    if found:
        return min(found, key=lambda cause: _ORDER.index(cause.weight))
    if _OWN.match(text):
        return OWN
    known = _EXCEPTION.match(text) or (raised and (text == TRACEBACK or _RAISED.match(text)))
    return EXCEPTION if known else None


def _first(hits: Sequence[tuple[Cause, Line]], cause: Cause) -> Line | None:
    return next((line for found, line in hits if found is cause), None)


def _sure(cause: Cause, evidence: Evidence) -> Sure:
    if cause.weight in ("root", "scheduler"):
        return "certain" if evidence.state or evidence.exit_code else "likely"
    return "a guess"


def _by_exit(evidence: Evidence) -> Finding | None:
    if cause := CAUSES.get(_BY_SIGNAL.get(evidence.signal or 0, _BY_EXIT.get(evidence.exit_code or 0, ""))):
        if cause.name == "killed" and evidence.out_of_memory:
            return Finding(CAUSES["host_out_of_memory"], "likely")
        return Finding(cause, "a guess")
    if evidence.state in ("FAILED",) or evidence.exit_code:
        return Finding(UNKNOWN, "a guess")
    return None
