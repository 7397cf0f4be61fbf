"""Which scheduler serves a run."""

from __future__ import annotations

import shutil

from clusterctl.adapters.scheduler import Scheduler
from clusterctl.errors import UsageProblem
from clusterctl.model import SchedulerName


def choose(asked: str) -> SchedulerName:
    """``auto`` means Slurm where sbatch knows a cluster (also one that is down), else this machine.

    Raises:
        UsageProblem: any other word.
    """
    if asked == "auto":
        if not shutil.which("sbatch"):
            return "local"
        from clusterctl.adapters.slurm import available

        return "slurm" if available() else "local"
    if asked == "slurm":
        return "slurm"
    if asked == "local":
        return "local"
    raise UsageProblem(f"unknown scheduler {asked!r}", hint="there are: auto, slurm, local")


def get(name: SchedulerName) -> Scheduler:
    """The adapter. Imported here, so that a command loads only the one it needs."""
    if name == "slurm":
        from clusterctl.adapters.slurm import Slurm

        return Slurm()
    from clusterctl.adapters.local import Local

    return Local()
