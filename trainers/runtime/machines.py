"""The machines of a run, as each of its processes sees its own."""

from __future__ import annotations

import os
import platform
import socket
from typing import Any

import torch


def this_machine() -> dict[str, Any]:
    """Host, processors and the GPUs that this process sees, by UUID: ordinals mean nothing on another day."""
    gpus = []
    for index in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(index)
        gpus.append({"name": gpu.name, "memory": gpu.total_memory, "uuid": f"GPU-{gpu.uuid}"})
    return {
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "cpus": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "gpus": gpus,
    }


def all_machines() -> list[dict[str, Any]]:
    """The machines of all processes, each host once. Collective: every process has to call it."""
    from accelerate.utils import gather_object

    hosts: dict[str, dict[str, Any]] = {}
    for machine in gather_object([this_machine()]):
        known = hosts.setdefault(machine["host"], machine)
        seen = {gpu["uuid"] for gpu in known["gpus"]}
        known["gpus"] += [gpu for gpu in machine["gpus"] if gpu["uuid"] not in seen]
    return list(hosts.values())
