"""Stage ``rloo``: what it knows."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from trainers.config import RunConfig
from trainers.config.stages.rollout import Rollout, RolloutOptim, check_rollouts


class RlooMethod(Rollout):
    """REINFORCE leave one out (https://arxiv.org/abs/2402.14740) on TRL's RLOOTrainer."""

    beta: float = Field(0.05, ge=0, description="Weight of the KL to the reference, taken off the reward.")
    epsilon: float = Field(0.2, gt=0, description="Clipping of the ratio of new and old probability.")
    num_iterations: int = Field(1, ge=1, description="Optimiser steps on the same answers.")


class Rloo(RunConfig):
    """REINFORCE leave one out."""

    stage: Literal["rloo"]
    method: RlooMethod
    optim: RolloutOptim = RolloutOptim()

    @model_validator(mode="after")
    def _possible(self) -> Rloo:
        check_rollouts(self)
        return self
