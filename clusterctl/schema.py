"""The shapes of the files that users write: recipe, profile, site. The recipe's sections are the trainer's own."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from clusterctl import durations
from trainers.config.sections import Launcher, Offload, Strategy, parallel_problem

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MEM = re.compile(r"\d+[KMGT]?", re.IGNORECASE)


def _seconds(value: Any) -> Any:
    return durations.seconds(str(value)) if isinstance(value, (str, int)) and not isinstance(value, bool) else value


def _lead(value: Any) -> Any:
    """A bare number is seconds here, as in sbatch's --signal=USR1@300, not minutes as in --time."""
    return int(value) if str(value).isdigit() else _seconds(value)


def _env_name(name: str) -> str:
    if not _ENV_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of an environment variable")
    return name


def _mem(text: str) -> str:
    if not _MEM.fullmatch(text):
        raise ValueError(f"{text!r} is no amount of memory: write 64G")
    return text.upper()


def _card_memory(text: str) -> str:
    if not re.fullmatch(r"\d{1,4}G", text, re.IGNORECASE) or not int(text[:-1]):
        raise ValueError(f"{text!r} is no amount of GPU memory: write 40G")
    return text.upper()


def _one_line(text: str) -> str:
    if any(ord(c) < 32 or ord(c) == 127 for c in text):
        raise ValueError("line breaks and control characters cannot stand here")
    return text


LONGEST = 366 * 86400
"""Seconds of the longest time limit. Anything beyond is a slip of the keyboard."""

Seconds = Annotated[int, BeforeValidator(_seconds), Field(gt=0, le=LONGEST)]
Line = Annotated[str, AfterValidator(_one_line)]
EnvName = Annotated[str, AfterValidator(_env_name)]
Env = dict[EnvName, Line]


class Strict(BaseModel):
    """Unknown keys are errors, so that a misspelled one is never ignored."""

    # Of these a command needs one or two; to build the validators of the others takes milliseconds.
    model_config = ConfigDict(
        extra="forbid", frozen=True, coerce_numbers_to_str=True, protected_namespaces=(), defer_build=True
    )


class Profile(Strict):
    """How to use hardware: what a job asks of the scheduler and how its processes share the work."""

    description: str = ""
    gpu_type: Line | None = None
    gpu_memory: Annotated[str, AfterValidator(_card_memory)] | None = None
    gpus_per_node: int = Field(0, ge=0, le=64)
    nodes: int = Field(1, ge=1, le=10_000)
    processes_per_node: int | None = Field(None, ge=1, le=1024)
    cpus_per_task: int | None = Field(None, ge=1, le=4096)
    mem: Annotated[str, AfterValidator(_mem)] | None = None
    time: Seconds = 24 * 3600
    signal_lead: Annotated[int, BeforeValidator(_lead), Field(gt=0)] = 300
    partition: Line | None = None
    account: Line | None = None
    qos: Line | None = None
    constraint: Line | None = None
    launcher: Launcher = "python"
    strategy: Strategy = "single"
    offload: Offload = "none"
    dtype: Literal["fp32", "bf16", "fp16"] = "bf16"
    env: Env = {}
    set: dict[str, Any] = {}

    @property
    def processes(self) -> int:
        """Processes on each node: one a GPU, unless said otherwise (which only CPU profiles may)."""
        return self.processes_per_node or max(1, self.gpus_per_node)

    @property
    def cpus(self) -> int:
        """CPUs of a node's part of the job. Where nobody said or reckoned them: 8 for each GPU, 4 without one."""
        return self.cpus_per_task or 8 * self.gpus_per_node or 4

    @property
    def least_memory(self) -> int | None:
        """Bytes that one card has to hold at least; None where any will do.

        ``gpu_memory`` is the card's as data sheets have it, in GB, of which driver and ECC keep some back: a T4 of
        16 GB gives a program 15.6 (trainers/hardware/gpu_types.py).
        """
        return round(0.95e9 * int(self.gpu_memory[:-1])) if self.gpu_memory else None

    @model_validator(mode="after")
    def _consistent(self) -> Profile:
        if self.gpus_per_node and self.processes_per_node not in (None, self.gpus_per_node):
            raise ValueError(
                f"processes_per_node {self.processes_per_node} differs from gpus_per_node {self.gpus_per_node}:"
                " leave it out, each GPU gets one process"
            )
        if self.gpu_type and not self.gpus_per_node:
            raise ValueError(f"gpu_type {self.gpu_type} without a GPU: give gpus_per_node, or take profile cpu")
        if self.gpu_memory and (self.gpu_type or not self.gpus_per_node):
            raise ValueError("gpu_memory chooses among the types of GPU: it needs gpus_per_node, and no gpu_type")
        if problem := parallel_problem(
            self.launcher, self.strategy, self.offload, self.nodes * self.processes, cpu=not self.gpus_per_node
        ):
            raise ValueError(problem)
        if self.dtype == "fp16" and not self.gpus_per_node:
            raise ValueError("dtype fp16 needs a GPU: use fp32 or bf16")
        if self.signal_lead >= self.time:
            raise ValueError(
                f"signal_lead ({durations.words(self.signal_lead)}) must be shorter than time"
                f" ({durations.words(self.time)}): it is the warning before the end"
            )
        return self


class Member(Strict):
    """A member of a pipeline. What is left out is as the recipe says."""

    recipe: str = Field(description="A recipe's name or path.")
    name: Line | None = Field(None, min_length=1, description="What the others call it; empty: the recipe's name.")
    starts_from: str | None = Field(
        None, description="The member whose model it goes on with; empty: the one before; none: its recipe's own model."
    )
    profile: str | None = Field(None, description="A profile of its own.")
    set: dict[str, Any] = Field({}, description="Overrides for this member, as in a profile. `--set` wins.")


class Environment(Strict):
    """Where Python comes from on the node. ``none`` takes the Python that runs clusterctl."""

    kind: Literal["none", "conda", "venv", "uv", "python"] = "none"
    name: Line | None = Field(None, description="conda: name or prefix of the environment")
    path: Line | None = Field(None, description="venv: its folder; uv: the project's; python: the program")

    @model_validator(mode="after")
    def _complete(self) -> Environment:
        needed = {"conda": "name", "venv": "path", "uv": "path", "python": "path"}.get(self.kind)
        if needed and not getattr(self, needed):
            raise ValueError(f"kind {self.kind} needs `{needed}`")
        return self


class HuggingFace(Strict):
    """The hub as seen from the nodes."""

    endpoint: Line | None = Field(None, description="HF_ENDPOINT, for a mirror")
    home: Line | None = Field(None, description="HF_HOME, where models and data sets are cached")
    offline: bool = Field(False, description="never ask the hub: HF_HUB_OFFLINE=1")


class Secrets(Strict):
    """Names of the variables that hold keys, and the 0600 file to read them from when they are not set."""

    file: Line = "~/.config/clusterctl/secrets.env"
    names: list[EnvName] = ["SWANLAB_API_KEY", "WANDB_API_KEY", "HF_TOKEN"]


class Site(Strict):
    """Where runs happen: one file per cluster or project. Everything may be left out."""

    output_root: Line = "logs"
    scheduler: Literal["auto", "slurm", "local"] = "auto"
    partitions: dict[str, Line] = Field({}, description="GPU type (or cpu): partition")
    account: Line | None = None
    qos: Line | None = None
    gpu_request: Literal["gpus-per-node", "gres"] = "gpus-per-node"
    modules: list[Line] = []
    environment: Environment = Environment()
    env: Env = {}
    hugging_face: HuggingFace = HuggingFace()
    tracking: dict[str, Any] = {}
    notify: Line | None = Field(None, description="who is told: a command, https://..., or mail:ADDRESS")
    secrets: Secrets = Secrets()
