"""The one schema of a training run: clusterctl writes it to ``run.yaml``, ``python -m trainers`` reads it.

No torch here: a login node validates with it. Sections and names are those of transformers, TRL and PEFT
wherever they have a name for the thing. A run is described by the class of its stage, which alone knows the
fields of its ``method``.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError, model_validator

from trainers.config.engines import verl_problem
from trainers.config.groups import batch_problem, group_problem
from trainers.config.methods import (
    CptMethod,
    DpoMethod,
    GrpoMethod,
    KtoMethod,
    MlmMethod,
    PpoMethod,
    RewardMethod,
    RlooMethod,
    SftMethod,
    StagedMethod,
)
from trainers.config.section import Line, Section
from trainers.config.sections import Data, Eval, Model, Optim, Output, Parallel, Precision, Tracking, parallel_problem

__all__ = [
    "STAGES",
    "Cpt",
    "Data",
    "Dpo",
    "Eval",
    "Grpo",
    "Kto",
    "Mlm",
    "Model",
    "Optim",
    "Output",
    "Parallel",
    "Ppo",
    "Precision",
    "Reward",
    "Rloo",
    "RunConfig",
    "Sft",
    "Stage1",
    "Stage2",
    "Tracking",
    "explain",
    "load",
    "parallel_problem",
    "parse",
    "schema_of",
]


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


class Cpt(RunConfig):
    """Continued pre-training."""

    stage: Literal["cpt"]
    method: CptMethod = CptMethod()


class Mlm(RunConfig):
    """Masked language modelling of an encoder."""

    stage: Literal["mlm"]
    method: MlmMethod = MlmMethod()


class Sft(RunConfig):
    """Supervised fine-tuning."""

    stage: Literal["sft"]
    method: SftMethod = SftMethod()


class PreferenceOptim(Optim):
    """Preferences are learnt in small steps: 5e-6 is for an adapter, 5e-7 for all weights."""

    learning_rate: float = Field(5e-6, gt=0, description="The learning rate at its peak.")


class Dpo(RunConfig):
    """Direct preference optimisation."""

    stage: Literal["dpo"]
    method: DpoMethod = DpoMethod()
    optim: PreferenceOptim = PreferenceOptim()


class KtoOptim(PreferenceOptim):
    """A batch has to hold several rows."""

    per_device_train_batch_size: int = Field(4, ge=1, description="Rows a process takes at once.")


class Kto(RunConfig):
    """Kahneman-Tversky optimisation."""

    stage: Literal["kto"]
    method: KtoMethod = KtoMethod()
    optim: KtoOptim = KtoOptim()

    @model_validator(mode="after")
    def _has_others(self) -> Kto:
        if self.method.loss_type == "kto" and self.optim.per_device_train_batch_size < 2:
            raise ValueError(
                "optim.per_device_train_batch_size must be 2 or more: loss_type kto takes the answers to the other "
                "prompts of a batch for comparison (apo_zero_unpaired does not)"
            )
        return self


class Reward(RunConfig):
    """A reward model."""

    stage: Literal["reward"]
    method: RewardMethod = RewardMethod()


class RolloutOptim(Optim):
    """Stages on answers of the model's own: TRL's learning rate."""

    learning_rate: float = Field(1e-6, gt=0, description="The learning rate at its peak.")


class Grpo(RunConfig):
    """Group relative policy optimisation."""

    stage: Literal["grpo"]
    engine: Literal["trl", "verl"] = Field("trl", description="What trains: TRL on one node, verl on Ray over many.")
    method: GrpoMethod
    optim: RolloutOptim = RolloutOptim()

    @model_validator(mode="after")
    def _possible(self) -> Grpo:
        _check_rollouts(self)
        return self


class Rloo(RunConfig):
    """REINFORCE leave one out."""

    stage: Literal["rloo"]
    method: RlooMethod
    optim: RolloutOptim = RolloutOptim()

    @model_validator(mode="after")
    def _possible(self) -> Rloo:
        _check_rollouts(self)
        return self


class Ppo(RunConfig):
    """Proximal policy optimisation, on verl."""

    stage: Literal["ppo"]
    engine: Literal["verl"] = Field("verl", description="What trains: verl on Ray.")
    method: PpoMethod
    optim: RolloutOptim = RolloutOptim()

    @model_validator(mode="after")
    def _possible(self) -> Ppo:
        _check_rollouts(self)
        return self


def _check_rollouts(run: RunConfig) -> None:
    """Raise ValueError for what the engine cannot do, and for steps that hold no whole groups of answers."""
    if run.engine == "verl" and (problem := verl_problem(run)):
        raise ValueError(problem)
    optim = run.optim
    batch, accumulation = optim.per_device_train_batch_size, optim.gradient_accumulation_steps
    if problem := group_problem(batch, accumulation, run.parallel.world_size, run.method.num_generations):
        raise ValueError(problem)


class _Staged(RunConfig):
    """Two-stage training."""

    method: StagedMethod = StagedMethod()

    @model_validator(mode="after")
    def _has_layers(self) -> _Staged:
        if self.model.adapter != "none":
            raise ValueError(f"{self.stage} trains the model's own weights: set model.adapter to none")
        if self.stage == "stage1":
            # Stage 2 finds them in the config of the model that stage 1 made.
            if not self.model.rope_free_layers:
                raise ValueError("stage1 needs model.rope_free_layers: the layers that lose their positions")
            if self.model.freeze or self.model.train_only:
                raise ValueError("stage1 trains the layers of model.rope_free_layers: drop freeze and train_only")
        return self


class Stage1(_Staged):
    """Only the RoPE-free layers learn."""

    stage: Literal["stage1"]


class Stage2(_Staged):
    """All parameters learn."""

    stage: Literal["stage2"]


STAGES: dict[str, type[RunConfig]] = {
    "cpt": Cpt,
    "mlm": Mlm,
    "sft": Sft,
    "dpo": Dpo,
    "kto": Kto,
    "reward": Reward,
    "grpo": Grpo,
    "rloo": Rloo,
    "ppo": Ppo,
    "stage1": Stage1,
    "stage2": Stage2,
}


class _Unknown(RunConfig):
    """Stands for a stage that there is not, so that all its other errors are found too."""

    stage: Literal["cpt", "mlm", "sft", "dpo", "kto", "reward", "grpo", "rloo", "ppo", "stage1", "stage2"]
    engine: Any = "trl"
    method: Any = None


def schema_of(values: Mapping[str, Any]) -> type[RunConfig]:
    """The class that checks these values: that of their stage."""
    stage = values.get("stage")
    return STAGES.get(stage, _Unknown) if isinstance(stage, str) else _Unknown


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
