"""What the stages share that train on answers of the model's own: ``grpo``, ``rloo`` and ``ppo``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from trainers.config import RunConfig
from trainers.config.engines import verl_problem
from trainers.config.groups import group_problem
from trainers.config.section import Names, Section
from trainers.config.sections import Optim
from trainers.rewards import name_problem


class Rollout(Section):
    """What all stages share that train on answers that the model itself generates."""

    num_generations: int = Field(
        8, ge=2, description="Answers to each prompt; a batch of all processes holds whole groups."
    )
    max_completion_length: int = Field(512, ge=1, description="Tokens of an answer.")
    temperature: float = Field(1.0, gt=0, description="Temperature of the sampling.")
    top_p: float = Field(1.0, gt=0, le=1, description="Sample among the likeliest tokens of this share.")
    reward_functions: Names = Field(
        [], description="Shipped names, or FILE.py:FUNCTION called as TRL calls it (completions, **columns)."
    )
    reward_model: str | None = Field(
        None, description="A sequence classifier that rates answers: directory or hub name."
    )
    reward_weights: list[float] = Field([], description="A weight for each reward, the model's last; empty: 1 each.")
    use_vllm: bool = Field(False, description="Generate with vLLM in the same process; needs a GPU.")

    @model_validator(mode="after")
    def _rewarded(self) -> Rollout:
        for name in self.reward_functions:
            if problem := name_problem(name):
                raise ValueError(problem)
        rewards = len(self.reward_functions) + bool(self.reward_model)
        if not rewards:
            raise ValueError("needs reward_functions or reward_model: nothing says which answer is good")
        if self.reward_weights and len(self.reward_weights) != rewards:
            raise ValueError(f"{len(self.reward_weights)} reward_weights for {rewards} rewards: one for each")
        return self


class Verl(Section):
    """What the engine verl asks for beyond the rest (https://github.com/verl-project/verl). Batches are those of
    the section optim: one optimiser step takes as many answers as it would with the engine trl."""

    rollout: Literal["vllm", "sglang", "trtllm"] = Field("vllm", description="What generates; verl has no hf rollout.")
    max_prompt_length: int = Field(
        1024, ge=1, description="Tokens of a prompt, for data.max_length; longer are left out."
    )
    tensor_model_parallel_size: int = Field(1, ge=1, description="GPUs that share one generating model.")
    gpu_memory_utilization: float = Field(0.6, gt=0, lt=1, description="Share of a GPU for the generating model.")
    critic_learning_rate: float = Field(1e-5, gt=0, description="ppo: learning rate of the value model.")
    ray_start_timeout: int = Field(300, ge=1, description="Seconds until all nodes have to be part of Ray.")


class RolloutOptim(Optim):
    """Stages on answers of the model's own: TRL's learning rate."""

    learning_rate: float = Field(1e-6, gt=0, description="The learning rate at its peak.")


def check_rollouts(run: RunConfig) -> None:
    """Raise ValueError for what the engine cannot do, and for steps that hold no whole groups of answers."""
    if run.engine == "verl" and (problem := verl_problem(run)):
        raise ValueError(problem)
    optim = run.optim
    batch, accumulation = optim.per_device_train_batch_size, optim.gradient_accumulation_steps
    if problem := group_problem(batch, accumulation, run.parallel.world_size, run.method.num_generations):
        raise ValueError(problem)
