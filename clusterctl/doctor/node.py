"""What ``trainers.doctor`` answers: in the job's environment on this machine, and from the output of a job."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import clusterctl
from clusterctl import __version__, assets, render
from clusterctl.adapters import process
from clusterctl.doctor.check import Check, parse
from clusterctl.errors import Unavailable
from clusterctl.model import Activation, Plan, Resources, SchedulerName
from clusterctl.schema import Profile, Site

_LONGEST = 600
"""Seconds for all checks on this machine: each has a limit of its own, of a minute or three."""

CLOCKS = 5.0
"""Seconds between two machines' clocks from which files seem to come from the future."""


@dataclass(frozen=True)
class Said:
    """What was read of the output of ``doctor.sh``: the checks, and the hosts that came to their end."""

    checks: tuple[Check, ...]
    done: frozenset[str]


def plan(scheduler: SchedulerName, resources: Resources, activation: Activation, processes: int) -> Plan:
    """What ``doctor.sh`` is rendered from."""
    return Plan("clusterctl-doctor", scheduler, resources, activation, "python", False, processes, __version__)


def script(made: Plan) -> str:
    """``doctor.sh``. Raises UsageProblem for a broken template."""
    return render.render(made, assets.find("job_templates", "doctor.sh").path)


def asked(root: Path, site: Site, profile: Profile | None) -> str:
    """ASKED.json: the fields of ``trainers.doctor.check.Asked``."""
    reported = site.tracking.get("report_to") or []
    needs = [reported] if isinstance(reported, str) else [str(name) for name in reported]
    values: dict[str, object] = {"output_root": str(root.absolute()), "parts": ["machine", "training"]}
    if profile is not None:
        needs += ["deepspeed"] if profile.strategy.startswith("zero") else []
        values |= {
            "gpus": profile.gpus_per_node,
            "cpus": profile.cpus,
            "nodes": profile.nodes,
            "processes": profile.processes,
            "dtype": profile.dtype,
        }
    return json.dumps({**values, "needs": [name for name in needs if name != "none"]})


def look_here(activation: Activation, question: str, *, trains: bool) -> list[Check]:
    """The checks on this machine, by the job's Python. Where that cannot be had: why, and what ours can tell.

    ``trains`` False: jobs run elsewhere, and the environment need not work here. Ours tells of disks and network.
    """
    made = plan("local", Resources(), activation, 1)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "asked.json"
        if not trains:
            return _alone(activation, question, file)
        file.write_text(question, encoding="utf-8")
        done = _run(["bash", "-c", script(made), "doctor", str(file)], os.environ)
        said = read(done.stdout)
        if said.done:
            return [environment(activation), *here(said.checks)]
        problem = [*why(done.stderr, done.returncode), *here(said.checks)]
        if any(check.name == "free space" for check in said.checks):
            return problem
        return [*problem, *_alone(activation, question, file)]


def _alone(activation: Activation, question: str, file: Path) -> list[Check]:
    """Machine, disks and network, which need no environment: by our own Python."""
    file.write_text(json.dumps({**json.loads(question), "parts": ["machine"]}), encoding="utf-8")
    folder = Path(clusterctl.__file__).parents[1]
    argv = [sys.executable, "-m", "trainers.doctor", str(file)]
    return here(read(_run(argv, {**os.environ, **dict(activation.env)}, folder).stdout).checks)


def _run(argv: Sequence[str], env: Mapping[str, str], cwd: Path | None = None) -> process.Finished:
    try:
        return process.run(argv, timeout=_LONGEST, env=env, cwd=cwd)
    except Unavailable as e:
        return process.Finished(3, "", f"clusterctl: {e.message}\nclusterctl: try it again, or look what hangs with ps")


def here(checks: Sequence[Check]) -> list[Check]:
    """Without the host, which a section about one machine names itself."""
    return [replace(check, host="") for check in checks]


def environment(activation: Activation) -> Check:
    """That the activation worked, and what it was."""
    kind = "the Python of clusterctl" if activation.kind == "none" else f"{activation.kind} {activation.target}"
    modules = f", modules {' '.join(activation.modules)}" if activation.modules else ""
    return Check("environment", "ok", kind + modules)


def read(output: str) -> Said:
    """The lines of ``trainers.doctor`` among whatever else was printed."""
    checks, done = [], set()
    for line in output.splitlines():
        try:
            values = json.loads(line)
        except ValueError:
            continue
        if not isinstance(values, dict) or values.get("doctor") != 1:
            continue
        host = str(values.get("host", ""))
        if values.get("done"):
            done.add(host)
        elif check := parse(values.get("check"), host):
            checks.append(check)
    return Said(tuple(checks), frozenset(done))


def why(stderr: str, code: int) -> list[Check]:
    """Why ``doctor.sh`` came to no end: its own two lines, else the last one of what it ran."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    own = [line.removeprefix("clusterctl: ") for line in lines if line.startswith("clusterctl: ")]
    if len(own) >= 2:
        return [Check("environment", "fail", own[-2], own[-1])]
    words = lines[-1] if lines else f"it ended with exit code {code}"
    remedy = "try by hand what `environment` and `modules` of clusterctl.yaml name"
    return [Check("environment", "fail", f"the job's Python did not answer: {words}", remedy)]


def check_clocks(ours: Sequence[Check], theirs: Sequence[Check]) -> list[Check]:
    """The clock of each node against this machine's: both were held against the same file system."""
    mine = next((check.value for check in ours if check.name == "clock"), None)
    found = []
    for check in theirs:
        if check.name != "clock" or check.value is None or mine is None:
            continue
        ahead = check.value - mine
        evidence = f"{abs(ahead):.1f} s {'ahead of' if ahead >= 0 else 'behind'} this machine"
        if abs(ahead) < CLOCKS:
            found.append(Check("clock against here", "ok", evidence, host=check.host))
        else:
            remedy = "tell the administrator: clocks of nodes are to be kept together by NTP"
            found.append(Check("clock against here", "warn", evidence, remedy, check.host))
    return found
