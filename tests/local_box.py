"""A private machine for tests of the local runner: its own state and lease folders, and jobs with real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from clusterctl.adapters import local_job, procfs
from clusterctl.adapters.local import Local
from clusterctl.model import Job, JobRef, JobState, Resources, Submission

ROOT = Path(__file__).resolve().parents[1]

WAIT_FOR_GO = "until [[ -e go ]]; do sleep 0.05; done"
"""Makes a job run until the test makes the file ``go``."""

_SUBMIT = """
import json, signal, sys
from pathlib import Path
from clusterctl.adapters.local import Local
from clusterctl.model import Resources, Submission
run_dir, token, resources, grace, then = json.loads(sys.argv[1])
resources["gpu_ids"] = tuple(resources["gpu_ids"])
wanted = Submission("run", Path(run_dir), "name", token, Resources(**resources))
print(Local(kill_wait=grace, cancel_grace=grace).submit(wanted), flush=True)
if then == "stay":
    signal.pause()
"""


@dataclass
class LocalBox:
    """Everything of it lies under ``root``, whose name and whose run directories' names are hostile."""

    root: Path
    local: Local = field(default_factory=lambda: Local(kill_wait=1.0, cancel_grace=1.0))
    refs: list[JobRef] = field(default_factory=list)

    def run_dir(self, script: str) -> Path:
        """A new run directory with this ``job.sh``."""
        run_dir = self.root / f"run {len(list(self.root.glob('run *')))} 跑'; echo \"$x"
        run_dir.mkdir()
        (run_dir / "logs").mkdir()
        (run_dir / "job.sh").write_text(f"#!/usr/bin/env bash\n{script}\n", encoding="utf-8")
        return run_dir

    def out(self, ref: JobRef) -> str:
        """What the job printed."""
        return (ref.run_dir / "logs/job.out").read_text(encoding="utf-8")

    def kill_runner(self, ref: JobRef) -> None:
        """SIGKILL to the runner of a job, which lives on."""
        runner = self.local_json(ref).runner
        os.kill(runner.pid, signal.SIGKILL)
        wait_until(lambda: not procfs.alive(runner))

    def forge(self, ref: JobRef, **changes: object) -> None:
        """Write other facts into the record of a job."""
        local_job.write(ref.run_dir, replace(self.local_json(ref), **changes))  # type: ignore[arg-type]

    def submit(self, script: str, *, after: tuple[str, ...] = (), **resources: int) -> JobRef:
        """Submit a job from this process."""
        run_dir = self.run_dir(script)
        token = uuid.uuid4().hex
        wanted = Submission("run", run_dir, "name", token, Resources(**{"time_limit": 60, **resources}), after)
        return self.remember(self.local.submit(wanted), token, run_dir)

    def submit_from_child(self, script: str, *, env: Mapping[str, str], **resources: object) -> JobRef:
        """Submit a job from a process with these variables added. What it says when it fails is raised."""
        run_dir = self.run_dir(script)
        token = uuid.uuid4().hex
        done = subprocess.run(
            self.submit_command(run_dir, token, **resources),
            env=os.environ | env,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(done.stderr.splitlines()[-1])
        return self.remember(done.stdout.strip(), token, run_dir)

    def submit_command(self, run_dir: Path, token: str, then: str = "", **resources: object) -> list[str]:
        """The command of a process that submits a job, prints its id, and ends or (``then='stay'``) stays."""
        wanted = {"time_limit": 60, "gpu_ids": (), **resources}
        return [sys.executable, "-c", _SUBMIT, json.dumps([str(run_dir), token, wanted, 1.0, then])]

    def remember(self, job_id: str, token: str, run_dir: Path) -> JobRef:
        """A reference to a job, whose processes end with the test."""
        ref = JobRef(job_id, token, time.time(), run_dir)
        self.refs.append(ref)
        return ref

    def job(self, ref: JobRef) -> Job:
        """The job as it is now."""
        return self.local.jobs([ref])[ref.token]

    def until(self, ref: JobRef, *states: JobState) -> Job:
        """Wait until the job is in one of these states, without which: until it ended."""
        seen: list[Job] = []

        def there() -> bool:
            seen[:] = [self.job(ref)]
            return seen[0].state in states if states else seen[0].state.final

        try:
            wait_until(there)
        except AssertionError:
            raise AssertionError(f"not {states or 'ended'}: {seen[0]}") from None
        return seen[0]

    def local_json(self, ref: JobRef) -> local_job.LocalJob:
        """The record of the job."""
        job = local_job.read(ref.run_dir)
        assert job is not None
        return job

    def close(self) -> None:
        """End all processes of all jobs."""
        for ref in self.refs:
            procfs.end_all(ref.token, grace=0)


def wait_until(condition: Callable[[], bool], *, seconds: float = 20) -> None:
    """Poll until it is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def pids_in(path: Path, number: int) -> list[procfs.Process]:
    """The processes whose numbers stand in a file, when there are so many."""
    wait_until(lambda: path.exists() and len(path.read_text().split()) >= number)
    found = [procfs.identify(int(word)) for word in path.read_text().split()]
    return [process for process in found if process is not None]
