"""``clusterctl gpus``: the GPUs of this machine and, where Slurm is at hand, of the cluster."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clusterctl.commands.options import Json
from clusterctl.errors import Unavailable
from clusterctl.result import Result

if TYPE_CHECKING:
    from clusterctl.model import Machine, Node

EXAMPLES = """
Examples:

  clusterctl gpus

  clusterctl gpus --json
"""


@dataclass(frozen=True)
class GpusResult:
    """What could be seen. Where a half is None its problem says why; both are None where nobody was asked."""

    machine: Machine | None
    machine_problem: str | None
    nodes: tuple[Node, ...] | None
    cluster_problem: str | None


def collect() -> GpusResult:
    """Ask the driver and, where ``sinfo`` is on PATH, Slurm. One that does not answer never hides the other.

    Raises:
        Unavailable: neither of them answers.
    """
    from clusterctl.adapters import nvml

    machine: Machine | None = None
    machine_error: Unavailable | None = None
    try:
        machine = nvml.machine()
    except Unavailable as e:
        machine_error = e

    nodes: tuple[Node, ...] | None = None
    cluster_error: Unavailable | None = None
    if shutil.which("sinfo"):
        from clusterctl.adapters.slurm import Slurm

        try:
            nodes = Slurm().nodes()
        except Unavailable as e:
            cluster_error = e

    if machine_error and nodes is None:
        if cluster_error:
            raise Unavailable(f"{machine_error.message}; {cluster_error.message}", hint=cluster_error.hint)
        raise machine_error
    return GpusResult(
        machine=machine,
        machine_problem=machine_error.message if machine_error else None,
        nodes=nodes,
        cluster_problem=cluster_error.message if cluster_error else None,
    )


def gpus(json: Json = False) -> Result:
    """Show this machine's GPUs with their use and health and, where Slurm answers, the cluster's."""
    found = collect()

    def show() -> object:
        from clusterctl.views import gpus as views

        return views.gpus_view(found)

    return Result("gpus", found, show)
