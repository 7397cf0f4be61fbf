"""The Slurm adapter at work on a box: what the adapter's tests share."""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from clusterctl.adapters.slurm import Slurm
from clusterctl.model import Job, JobRef, JobState, Resources, Submission
from tests.slurm.box import PATIENCE, Box, until


@dataclass
class Client:
    """A user of ``box``, whose runs lie in ``folder``."""

    box: Box
    folder: Path
    monkeypatch: pytest.MonkeyPatch
    slurm: Slurm = field(init=False)

    def __post_init__(self) -> None:
        self.slurm = self.again()

    def again(self) -> Slurm:
        """Another adapter of the same user, as in another terminal."""
        self.monkeypatch.setenv("SLURM_CONF", str(self.box.conf))
        return Slurm()

    def prepare(self, script: str, *header: str, after: Sequence[JobRef] = ()) -> Submission:
        """A run directory with a ``job.sh``; ``header`` are options of its #SBATCH lines."""
        token = secrets.token_hex(8)
        run_id = f"run-{token[:4]}"
        run_dir = self.folder / run_id
        (run_dir / "logs").mkdir(parents=True)
        options = ("--output=logs/job.out", "--error=logs/job.err", "--open-mode=append", "--mem=10", *header)
        lines = ["#!/bin/bash", *(f"#SBATCH {option}" for option in options), script, ""]
        (run_dir / "job.sh").write_text("\n".join(lines))
        parents = tuple(ref.job_id for ref in after)
        return Submission(run_id, run_dir, "name", token, Resources(), parents)

    def submit(self, script: str, *header: str, after: Sequence[JobRef] = ()) -> JobRef:
        """Prepare and submit."""
        return self.hand_over(self.prepare(script, *header, after=after))

    def hand_over(self, submission: Submission) -> JobRef:
        """Submit what was prepared."""
        now = time.time()
        return JobRef(self.slurm.submit(submission), submission.token, now, submission.run_dir)

    def look(self, ref: JobRef) -> Job | None:
        """The job as it is now; None when Slurm does not know it."""
        return self.slurm.jobs([ref], max_age=0).get(ref.token)

    def wait_for(self, ref: JobRef, *states: JobState, timeout: float = PATIENCE) -> Job:
        """Wait until the job is in one of ``states``."""
        job: Job | None = None

        def reached() -> bool:
            nonlocal job
            job = self.look(ref)
            return job is not None and job.state in states

        until(reached, f"job {ref.job_id} to be {' or '.join(states)}, it was {job}", timeout)
        assert job is not None
        return job

    def wait_until_forgotten(self, ref: JobRef) -> None:
        """Wait until MinJobAge has passed and the controller has dropped the job."""
        until(lambda: not self.box.state(ref.job_id), f"job {ref.job_id} to leave the queue")

    def with_token(self, token: str) -> list[str]:
        """All jobs of the queue that carry this token, whoever asks."""
        lines = self.box.command("squeue", "-h", "-t", "all", "-o", "%i %k").stdout.split("\n")
        return [line.split()[0] for line in lines if line.endswith(token)]


def fake_command(folder: Path, name: str, script: str) -> None:
    """A command that stands before the real one on PATH; in ``script`` ``$REAL`` is the real one."""
    real = shutil.which(name)
    assert real is not None
    path = folder / name
    path.write_text(f"#!/bin/bash\nREAL={real}\n{script}\n")
    path.chmod(0o755)


def count_calls(folder: Path) -> Path:
    """Fake commands that note their name in a file, which is returned, and become the real ones."""
    log = folder / "calls"
    log.touch()
    for name in ("sbatch", "squeue", "sacct", "scancel", "sinfo"):
        fake_command(folder, name, f'echo {name} >> "{log}"\nexec "$REAL" "$@"')
    return log
