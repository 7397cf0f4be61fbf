"""When a job would begin: asked of Slurm, or of the cards of this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache

from clusterctl.errors import NoFit, Unavailable
from clusterctl.hardware import Machine
from clusterctl.model import QueueStart, Resources, SchedulerName


def starts(scheduler: SchedulerName) -> Callable[[Resources], QueueStart]:
    """Who answers for one command. On this machine a start is known of free cards only: it is now, or unknown."""
    if scheduler == "slurm":
        from clusterctl.adapters.slurm import Slurm

        return Slurm().test_start
    look = cache(_look)
    return lambda resources: _here(resources, look)


@cache
def this_machine() -> Machine:
    """The cards of this machine that a job of ours can be given, looked at once. Raises Unavailable: no driver."""
    from clusterctl.adapters import choose_gpus, nvml

    machine = nvml.machine()
    return replace(machine, gpus=choose_gpus.visible(machine.gpus, os.environ.get("CUDA_VISIBLE_DEVICES")))


def _look() -> tuple[Machine, frozenset[str]]:
    from clusterctl.adapters import leases

    return this_machine(), frozenset(lease.uuid for lease in leases.holders())


def _here(resources: Resources, look: Callable[[], tuple[Machine, frozenset[str]]]) -> QueueStart:
    """By the arithmetic of the local runner, on what it looks at."""
    from clusterctl.adapters import choose_gpus

    if not choose_gpus.count(resources):
        return QueueStart(time.time())
    try:
        machine, leased = look()
        found = choose_gpus.choose(machine.gpus, leased, resources, machine.pairs)
    except Unavailable as e:
        return QueueStart(None, e.message)
    except NoFit as e:
        return QueueStart(None, e.message, refused=True)
    return QueueStart(None, found) if isinstance(found, str) else QueueStart(time.time())
