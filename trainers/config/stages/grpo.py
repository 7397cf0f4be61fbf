"""Stage ``grpo``: what it knows."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from trainers.config import RunConfig
from trainers.config.stages.rollout import Rollout, RolloutOptim, Verl, check_rollouts


class GrpoMethod(Rollout):
    """Group relative policy optimisation (https://arxiv.org/abs/2402.03300) on TRL's GRPOTrainer, or on verl."""

    beta: float = Field(0.0, ge=0, description="Weight of the KL to the reference; 0 needs no reference.")
    loss_type: Literal["grpo", "bnpo", "dr_grpo", "dapo"] = Field("dapo", description="How token losses are averaged.")
    epsilon: float = Field(0.2, gt=0, description="Clipping of the ratio of new and old probability.")
    num_iterations: int = Field(1, ge=1, description="Optimiser steps on the same answers.")
    scale_rewards: Literal["group", "batch", "none"] = Field(
        "group", description="What rewards are divided by: a deviation."
    )
    verl: Verl = Verl()


class Grpo(RunConfig):
    """Group relative policy optimisation."""

    stage: Literal["grpo"]
    engine: Literal["trl", "verl"] = Field("trl", description="What trains: TRL on one node, verl on Ray over many.")
    method: GrpoMethod
    optim: RolloutOptim = RolloutOptim()

    @model_validator(mode="after")
    def _possible(self) -> Grpo:
        check_rollouts(self)
        return self
