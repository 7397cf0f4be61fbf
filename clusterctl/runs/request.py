"""What a user asked for on the command line."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Literal

Kind = Literal["train", "test"]


@dataclass(frozen=True)
class Request:
    """What the user asked for on the command line."""

    recipe: str
    profile: str | None = None
    sets: tuple[str, ...] = ()
    name: str = ""
    scheduler: str | None = None
    kind: Kind = "train"
    engine: str | None = None
    force_start: bool = False
    """Whether a stage of RLHF may start from a model that has not learnt to answer."""
    gpu_type: str | None = None
    """A type, or auto."""
    gpus: int | None = None
    """Of all nodes together."""
    gpu_ids: tuple[str, ...] = ()
    mixed: bool = False
    command: tuple[str, ...] = ()

    auto_fix: tuple[str, ...] = ()
    """What the job may change by itself: oom, shorter."""
    notify: str = ""
    """Where word of the run goes, as ``aftercare.told`` has it."""

    def typed(self, command: str) -> str:
        """What to type for the same with this command; of several ``--set`` of one key the last counts."""
        sets = {item.partition("=")[0]: item for item in self.sets}
        options = [
            ("--profile", self.profile),
            *(("--set", item) for item in sets.values()),
            ("--gpu-type", self.gpu_type),
            ("--gpus", str(self.gpus or "")),
            ("--gpu-ids", ",".join(self.gpu_ids)),
            ("--name", self.name),
            ("--engine", self.engine),
            ("--scheduler", self.scheduler),
        ]
        words = [word for option, value in options if value for word in (option, value)]
        switches = {"--mixed": self.mixed, "--force-start": self.force_start}
        return shlex.join(["clusterctl", command, self.recipe, *words, *(one for one, on in switches.items() if on)])
