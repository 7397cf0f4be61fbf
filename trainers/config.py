"""The one schema of a training run: clusterctl writes it to ``run.yaml``, ``python -m trainers`` reads it.

No torch here: a login node validates with it. Sections and names are those of transformers, TRL and PEFT
wherever they have a name for the thing.
"""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

Tracker = Literal["swanlab", "tensorboard", "wandb"]


def _one_or_many(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Names = Annotated[list[str], BeforeValidator(_one_or_many)]
"""A list of strings, or one string for a list of one."""


def _one_line(text: str) -> str:
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise ValueError("line breaks and control characters cannot stand here")
    return text


def _steps(count: int) -> int:
    if count == 0:
        raise ValueError("0 steps train nothing: give a number of steps, or -1 for num_train_epochs")
    return count


class Section(BaseModel):
    """A part of the configuration. Unknown keys are errors; values do not change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Lora(Section):
    """A LoRA adapter, in PEFT's words. Ignored when ``model.adapter_name_or_path`` brings its own."""

    r: int = Field(16, ge=1, description="Rank of the update matrices.")
    lora_alpha: int = Field(32, ge=1, description="Scale: the update is multiplied by lora_alpha / r.")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before the update. 0 is fastest.")
    target_modules: Names = Field(["all-linear"], description="Module names to adapt, or all-linear.")


class Model(Section):
    """Which weights, and which part of them learns."""

    model_name_or_path: str = Field(min_length=1, description="A directory, or a name on the hub.")
    revision: str | None = Field(None, description="Branch, tag or commit on the hub.")
    trust_remote_code: bool = Field(False, description="Run Python code that comes with the model.")
    attn_implementation: Literal["sdpa", "eager", "flash_attention_2"] = Field("sdpa", description="Attention kernel.")
    adapter: Literal["lora", "none"] = Field("lora", description="lora, or none to train all weights.")
    adapter_name_or_path: str | None = Field(
        None, description="An adapter to go on training: a directory, or a run whose adapter is meant."
    )
    lora: Lora = Lora()
    chat_template: str | None = Field(None, description="A Jinja file that replaces the tokenizer's template.")
    gradient_checkpointing: bool = Field(False, description="Recompute activations: less memory, about 20 % slower.")

    @model_validator(mode="after")
    def _adapter_is_wanted(self) -> Model:
        if self.adapter == "none" and self.adapter_name_or_path:
            raise ValueError("adapter none trains all weights and cannot continue adapter_name_or_path: drop one")
        return self


class Data(Section):
    """Which rows, and how they become text."""

    train_files: Names = Field(min_length=1, description="CSV or JSONL files.")
    eval_files: Names = Field([], description="Held-out files of the same kind.")
    validation_split: float = Field(0.0, ge=0, lt=1, description="Share of the training rows held out.")
    format: Literal["auto", "prompt_response", "instruction", "input_output", "messages"] = Field(
        "auto", description="Shape of a row; auto decides from the columns."
    )
    columns: dict[str, str] = Field({}, description="Our column name: the name in the file.")
    system: str | None = Field(None, description="System message for rows that have none.")
    max_length: int = Field(1024, ge=8, description="Tokens; what is longer is cut at the end, and counted.")
    max_train_samples: int | None = Field(None, ge=1, description="Use at most this many training rows.")
    max_eval_samples: int | None = Field(None, ge=1, description="Use at most this many held-out rows.")

    @model_validator(mode="after")
    def _one_source_of_held_out_rows(self) -> Data:
        if self.eval_files and self.validation_split:
            raise ValueError("eval_files and validation_split exclude each other: drop one of them")
        return self


class SftMethod(Section):
    """Supervised fine-tuning: loss on the assistant's words only."""


class Optim(Section):
    """Optimiser, batch and length of training, in the words of transformers' TrainingArguments."""

    learning_rate: float = Field(1e-4, gt=0)
    lr_scheduler_type: Literal["cosine", "linear", "constant", "constant_with_warmup"] = "cosine"
    warmup_steps: float = Field(0.03, ge=0, description="Steps; below 1 a share of all steps.")
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    optim: Literal["adamw_torch", "adamw_torch_fused", "adafactor", "sgd"] = "adamw_torch_fused"
    num_train_epochs: float = Field(3.0, gt=0)
    max_steps: Annotated[int, AfterValidator(_steps)] = Field(
        -1, ge=-1, description="Optimiser steps; -1 means as num_train_epochs says."
    )
    per_device_train_batch_size: int = Field(1, ge=1)
    per_device_eval_batch_size: int = Field(8, ge=1)
    gradient_accumulation_steps: int = Field(8, ge=1)
    dataloader_num_workers: int = Field(0, ge=0)
    seed: int = Field(42, ge=0)


class Parallel(Section):
    """How the processes of this run share the work. Comes from the profile."""

    launcher: Literal["python", "torchrun", "accelerate"] = "python"
    strategy: Literal["single", "ddp", "zero2"] = "single"
    offload: Literal["none", "optimizer"] = "none"
    num_nodes: int = Field(1, ge=1)
    processes_per_node: int = Field(1, ge=1, description="Processes, which is GPUs, on each node.")
    ddp_timeout: int = Field(1800, ge=1, description="Seconds until a silent process counts as lost.")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto takes a GPU where one is visible; cuda fails without one; cpu never takes one."
    )

    @property
    def world_size(self) -> int:
        """Processes in all."""
        return self.num_nodes * self.processes_per_node

    @model_validator(mode="after")
    def _consistent(self) -> Parallel:
        if self.strategy == "single" and self.world_size > 1:
            raise ValueError(f"strategy single is for one process, this asks for {self.world_size}: use ddp or zero2")
        if self.launcher == "python" and (self.world_size > 1 or self.strategy == "zero2"):
            raise ValueError("launcher python starts one plain process: use torchrun or accelerate")
        if self.offload != "none" and self.strategy != "zero2":
            raise ValueError("offload needs strategy zero2")
        return self


class Precision(Section):
    """Number formats. Weights of an fp16 run are kept in fp32 and scaled, never trained in fp16."""

    dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    tf32: bool = Field(True, description="Let fp32 products use the tensor cores (Ampere and newer).")


class Tracking(Section):
    """Where metrics go besides the run directory. Keys come from the environment, never from here."""

    report_to: Annotated[list[Tracker], BeforeValidator(lambda v: [] if v in (None, "none") else _one_or_many(v))] = []
    project: str = "clusterctl"
    swanlab_mode: Literal["cloud", "local", "offline"] = "local"
    swanlab_workspace: str | None = None
    wandb_mode: Literal["online", "offline"] = "online"
    wandb_entity: str | None = None


class Eval(Section):
    """Held-out measurements. Without held-out rows nothing of this happens."""

    eval_steps: int | None = Field(None, ge=1, description="Evaluate every so many steps; None: start and end only.")
    samples: int = Field(0, ge=0, description="Held-out questions answered in words before and after training.")
    max_new_tokens: int = Field(128, ge=1, description="Length of those answers.")


class Output(Section):
    """What is written into the run directory, and how often."""

    logging_steps: int = Field(10, ge=1)
    save_steps: int = Field(200, ge=1)
    save_total_limit: int | None = Field(2, ge=1)


class RunConfig(Section):
    """Everything that a run needs to know to train. Frozen once it is submitted."""

    schema_version: Literal[1] = 1
    name: Annotated[str, AfterValidator(_one_line)] = Field(
        "run", min_length=1, max_length=200, description="What trackers call the run."
    )
    stage: Literal["sft"]
    kind: Literal["train", "test"] = "train"
    model: Model
    data: Data
    method: SftMethod = SftMethod()
    optim: Optim = Optim()
    parallel: Parallel = Parallel()
    precision: Precision = Precision()
    tracking: Tracking = Tracking()
    eval: Eval = Eval()
    output: Output = Output()


def load(path: Path) -> RunConfig:
    """Read ``run.yaml``. Raises pydantic's ValidationError, yaml's YAMLError or OSError."""
    import yaml

    return RunConfig.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))


def explain(error: ValidationError) -> list[str]:
    """Every problem of a configuration, one line each: where, what, and the nearest key to a misspelled one."""
    lines = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"])
        what = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            near = get_close_matches(str(problem["loc"][-1]), _keys(problem["loc"][:-1]), n=1)
            what = "unknown key" + (f", did you mean {near[0]}?" if near else "")
        elif problem["type"] not in ("missing", "value_error"):
            what += f", not {problem['input']!r}"
        lines.append(f"{where}: {what}" if where else what)
    return lines


def _keys(section: tuple[int | str, ...]) -> list[str]:
    """The keys that the section at this place of the configuration knows."""
    kind: type[BaseModel] = RunConfig
    for part in section:
        annotation = kind.model_fields[str(part)].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        kind = annotation
    return list(kind.model_fields)
