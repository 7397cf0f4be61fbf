"""Running Slurm's commands: in an environment that changes nothing of their meaning, and never for long."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from clusterctl.adapters import process
from clusterctl.errors import Unavailable

ANSWER_WITHIN = 12.0
"""Seconds for one question of ours, all its commands together."""

PING_TIMEOUT = 3.0
"""Seconds after which a controller counts as hanging; one that is well answers in ten milliseconds."""

DOWN_HINT = "try again later; jobs that are queued or running go on meanwhile"

_KEPT = ("SLURM_CONF", "SLURM_CLUSTERS")
_DROPPED = ("SLURM_", "SBATCH_", "SQUEUE_", "SACCT_", "SINFO_", "SCONTROL_", "SCANCEL_")


def soon(seconds: float) -> float:
    """The moment in so many seconds, on the clock that ``Commands`` counts by."""
    return time.monotonic() + seconds


class Commands:
    """Slurm's commands. ``calls`` are the names of those that were run, in order."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def ask(self, argv: Sequence[str], deadline: float) -> process.Finished:
        """Run a command that prints times as Unix seconds.

        Raises:
            Unavailable, process.TimedOut: as ``process.run``.
        """
        self.calls.append(argv[0])
        # With a fixed time zone glibc does not look at /etc/localtime for each time that is printed: a fifth of squeue.
        environment = {**_environment(), "SLURM_TIME_FORMAT": "%s", "TZ": "UTC0"}
        return process.run(argv, timeout=_until(deadline), env=environment)

    def sbatch(self, options: Sequence[str], deadline: float, folder: Path) -> process.Finished:
        """Submit ``job.sh`` from its folder. The job gets our environment, without an outer job's variables.

        Raises:
            Unavailable, process.TimedOut: as ``process.run``.
        """
        self.calls.append("sbatch")
        argv = ["sbatch", "--parsable", *options, "job.sh"]
        return process.run(argv, timeout=_until(deadline), cwd=folder, env=_environment())

    def require_controller(self, deadline: float) -> None:
        """Come back only when slurmctld is there: the other commands notice after nine seconds, or never.

        Raises:
            Unavailable: it is down, hangs, or this machine knows no cluster.
        """
        conf = os.environ.get("SLURM_CONF")
        if conf and not Path(conf).is_file():  # on this, Slurm's commands hang for a minute
            raise Unavailable(f"SLURM_CONF names a file that does not exist: {conf}", hint="correct it or unset it")
        try:
            done = self.ask(["scontrol", "ping"], min(deadline, soon(PING_TIMEOUT)))
        except process.TimedOut as e:
            raise Unavailable("Slurm's controller (slurmctld) does not answer", hint=DOWN_HINT) from e
        if " is UP" in done.stdout:
            return
        if "configuration source" in done.stderr:
            raise Unavailable("Slurm is not set up on this machine", hint="--scheduler local does without it")
        raise Unavailable("Slurm's controller (slurmctld) is down", hint=DOWN_HINT)


def _until(deadline: float) -> float:
    return max(1.0, deadline - time.monotonic())


def _environment() -> dict[str, str]:
    """Ours without what an outer job, or a user's defaults, would change in a command's meaning."""
    return {name: value for name, value in os.environ.items() if name in _KEPT or not name.startswith(_DROPPED)}
