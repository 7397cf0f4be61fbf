"""The one schema of a training run: clusterctl writes it to ``run.yaml``, ``python -m trainers`` reads it.

No torch here: a login node validates with it. Sections and names are those of transformers, TRL and PEFT
wherever they have a name for the thing. A run is described by the class of its stage, which alone knows the
fields of its ``method``, in the module of the stage's name in ``stages``.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, Field, ValidationError, model_validator

from trainers.config.groups import batch_problem
from trainers.config.section import Line, Section
from trainers.config.sections import Data, Eval, Model, Optim, Output, Parallel, Precision, Tracking, parallel_problem

__all__ = [
    "STAGES",
    "Data",
    "Eval",
    "Model",
    "Optim",
    "Output",
    "Parallel",
    "Precision",
    "RunConfig",
    "Tracking",
    "explain",
    "load",
    "of_stage",
    "parallel_problem",
    "parse",
    "schema_of",
]

Stage = Literal["cpt", "mlm", "sft", "dpo", "kto", "reward", "grpo", "rloo", "ppo", "stage1", "stage2"]
STAGES: tuple[str, ...] = get_args(Stage)


class RunConfig(Section):
    """Everything that a run needs to know to train, but its method. Frozen once it is submitted."""

    schema_version: Literal[1] = Field(1, description="Form of run.yaml.")
    name: Line = Field("run", min_length=1, max_length=200, description="What trackers call the run.")
    stage: str = Field(description="What is trained for.")
    kind: Literal["train", "test"] = Field("train", description="A run, or a short test of it.")
    engine: Literal["trl"] = Field("trl", description="What trains.")
    model: Model
    data: Data
    method: Any
    optim: Optim = Optim()
    parallel: Parallel = Parallel()
    precision: Precision = Precision()
    tracking: Tracking = Tracking()
    eval: Eval = Eval()
    output: Output = Output()

    @model_validator(mode="before")
    @classmethod
    def _with_method(cls, values: Any) -> Any:
        # So that a stage whose method needs something says what, and not only that there is no method.
        return {"method": {}, **values} if isinstance(values, Mapping) else values

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        optim = self.optim
        batch, accumulation = optim.per_device_train_batch_size, optim.gradient_accumulation_steps
        if problem := batch_problem(optim.train_batch_size, batch, accumulation, self.parallel.world_size):
            raise ValueError(problem)
        if self.data.streaming and self.stage != "cpt":
            raise ValueError(f"data.streaming is for stage cpt; {self.stage} needs to know all rows")
        if self.data.format != "auto" and self.stage != "sft":
            raise ValueError(f"data.format is for stage sft; {self.stage} decides from the columns: drop it")
        if self.data.streaming and self.optim.max_steps < 0:
            raise ValueError("data.streaming needs optim.max_steps: nobody knows where the stream ends")
        if self.eval.metric_for_best_model and not self.data.holds_out:
            raise ValueError("eval.metric_for_best_model needs held-out rows: data.eval_files or data.validation_split")
        if self.model.quantization != "none" and self.parallel.strategy in ("zero3", "fsdp"):
            raise ValueError(f"model.quantization does not go with strategy {self.parallel.strategy}: use ddp or zero2")
        if self.parallel.strategy == "fsdp" and getattr(self.method, "precompute_ref_log_probs", False):
            raise ValueError("method.precompute_ref_log_probs does not go with strategy fsdp: use ddp or zero3")
        if self.model.rope_free_layers and (self.engine == "verl" or getattr(self.method, "use_vllm", False)):
            raise ValueError("model.rope_free_layers: vLLM and verl would give positions to these layers all the same")
        return self


def of_stage(stage: str) -> type[RunConfig]:
    """The class of one of STAGES. No other is loaded: a command needs one, and each takes milliseconds."""
    schema: type[RunConfig] = getattr(import_module(f"trainers.config.stages.{stage}"), stage.capitalize())
    return schema


def schema_of(values: Mapping[str, Any]) -> type[RunConfig]:
    """The class that checks these values: that of their stage."""
    stage = values.get("stage")
    return of_stage(stage if isinstance(stage, str) and stage in STAGES else "unknown")


def parse(values: Any) -> RunConfig:
    """A configuration from plain values. Raises pydantic's ValidationError with every error."""
    return schema_of(values if isinstance(values, Mapping) else {}).model_validate(values)


def load(path: Path) -> RunConfig:
    """Read ``run.yaml``. Raises pydantic's ValidationError, yaml's YAMLError or OSError."""
    import yaml

    return parse(yaml.safe_load(path.read_text(encoding="utf-8")))


def explain(error: ValidationError, values: Any) -> list[str]:
    """Every problem of a configuration, one line each: where, what, and the nearest key to a misspelled one."""
    schema = schema_of(values if isinstance(values, Mapping) else {})
    lines = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"])
        what = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            near = get_close_matches(str(problem["loc"][-1]), _keys(schema, problem["loc"][:-1]), n=1)
            what = "unknown key" + (f", did you mean {near[0]}?" if near else "")
        elif problem["type"] not in ("missing", "value_error"):
            what += f", not {problem['input']!r}"
            near = get_close_matches(str(problem["input"]), _choices(problem.get("ctx", {}).get("expected", "")), n=1)
            what += f", did you mean {near[0]}?" if near else ""
        lines.append(f"{where}: {what}" if where else what)
    return lines


def _choices(expected: str) -> list[str]:
    """The choices in pydantic's words for them: ``'a', 'b' or 'c'``."""
    return expected.split("'")[1::2]


def _keys(schema: type[BaseModel], section: tuple[int | str, ...]) -> list[str]:
    """The keys that the section at this place of the configuration knows."""
    kind = schema
    for part in section:
        field = kind.model_fields.get(str(part))
        candidates = [] if field is None else [field.annotation, *getattr(field.annotation, "__args__", ())]
        sections = [one for one in candidates if isinstance(one, type) and issubclass(one, BaseModel)]
        if not sections:
            return []
        kind = sections[0]
    return list(kind.model_fields)
