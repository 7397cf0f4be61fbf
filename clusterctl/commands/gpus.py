"""``clusterctl gpus``: the GPUs of this machine and, where Slurm is at hand, of the cluster."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from clusterctl.commands.options import Json
from clusterctl.errors import Unavailable
from clusterctl.result import Result, Watch

if TYPE_CHECKING:
    from clusterctl.cluster import GpuJob, JobUse
    from clusterctl.hardware import Lease, Machine, Node

EXAMPLES = """
Examples:

  clusterctl gpus

  clusterctl gpus --jobs

  clusterctl gpus --watch

  clusterctl gpus --json
"""

WATCH_EVERY = 10.0
"""Seconds between two looks, each of which asks Slurm three things: is it there, its nodes, its queue."""

WATCH_JOBS_EVERY = 30.0
"""The same where each look also starts a step in every own job."""


@dataclass(frozen=True)
class GpusResult:
    """What could be seen. Where a half is None its problem says why; both are None where nobody was asked.

    ``jobs`` are everybody's that hold GPUs or wait for some. ``use`` is what the GPUs of own jobs do just now; None
    unless that was asked for.
    """

    machine: Machine | None
    machine_problem: str | None
    nodes: tuple[Node, ...] | None
    cluster_problem: str | None
    jobs: tuple[GpuJob, ...] | None = None
    use: tuple[JobUse, ...] | None = None
    leases: tuple[Lease, ...] = ()
    """Who holds GPUs of this machine."""


def collect(*, inside_jobs: bool = False) -> GpusResult:
    """Ask the driver and, where ``sinfo`` is on PATH, Slurm. One that does not answer never hides the other.

    ``inside_jobs``: also start nvidia-smi in every own running job.

    Raises:
        Unavailable: neither of them answers.
    """
    found, errors = look(inside_jobs=inside_jobs)
    if found.machine is None and found.nodes is None:
        hint = "run it on a GPU server or a login node; clusterctl doctor says what is missing here"
        raise Unavailable("; ".join(error.message for error in errors), hint=hint)
    return found


def look(*, inside_jobs: bool = False) -> tuple[GpusResult, list[Unavailable]]:
    """As ``collect``, with what did not answer instead of an error."""
    from clusterctl.adapters import nvml
    from clusterctl.adapters.leases import holders

    errors: list[Unavailable] = []
    machine: Machine | None = None
    machine_problem = cluster_problem = None
    try:
        machine = nvml.machine()
    except Unavailable as e:
        machine_problem = e.message
        errors.append(e)

    nodes: tuple[Node, ...] | None = None
    jobs: tuple[GpuJob, ...] | None = None
    use: tuple[JobUse, ...] | None = None
    if shutil.which("sinfo"):
        from clusterctl.adapters.slurm import Slurm

        slurm = Slurm()
        try:
            nodes = slurm.nodes()
            jobs = slurm.gpu_jobs()
            use = slurm.live_use(jobs) if inside_jobs else None
        except Unavailable as e:
            cluster_problem = e.message
            errors.append(e)
    return GpusResult(machine, machine_problem, nodes, cluster_problem, jobs, use, holders()), errors


def gpus(
    jobs: Annotated[
        bool, typer.Option("--jobs", "-j", help="Who holds which GPUs, and what those of your own jobs do just now.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Look again and again until q or Ctrl-C.")] = False,
    json: Json = False,
) -> Result | Watch:
    """Show the GPUs of this machine and of the cluster. Their use and health and, where Slurm answers, who waits."""
    if watch:
        # What is wrong at the first look is an error, later it is something to be seen.
        first = [collect(inside_jobs=jobs)]
        every = WATCH_JOBS_EVERY if jobs else WATCH_EVERY
        return Watch(lambda: _answer(first.pop() if first else look(inside_jobs=jobs)[0]), every)
    return _answer(collect(inside_jobs=jobs))


def _answer(found: GpusResult) -> Result:
    def show() -> object:
        from clusterctl.views import gpus as views

        return views.gpus_view(found)

    return Result("gpus", found, show)
