"""One finding, and what was asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warn", "fail", "unknown", "skipped"]


@dataclass(frozen=True)
class Check:
    """One line of evidence, and one of what to do for everything that is not ok."""

    name: str
    state: State
    evidence: str
    remedy: str = ""
    value: float | None = None
    """For ``clock``: seconds by which this machine is ahead of the file system."""


@dataclass(frozen=True)
class Asked:
    """What a job would have and need. ``gpus``, ``cpus``: of one node; these and ``dtype`` None where no job asked.

    ``parts``: ``machine`` needs the standard library only, ``training`` tries PyTorch and what stands on it.
    ``needs``: further packages. ``processes``: of one node; below 2 in all, no communication is tried, else they wait
    for each other ``patience`` seconds.
    """

    output_root: str
    parts: tuple[str, ...] = ("machine", "training")
    gpus: int | None = None
    cpus: int | None = None
    nodes: int = 1
    processes: int = 1
    dtype: str | None = None
    needs: tuple[str, ...] = ()
    patience: float = 60.0
