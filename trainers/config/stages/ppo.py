"""Stage ``ppo``: what it knows."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from trainers.config import RunConfig
from trainers.config.stages.rollout import Rollout, RolloutOptim, Verl, check_rollouts


class PpoMethod(Rollout):
    """Proximal policy optimisation with a value model (https://arxiv.org/abs/1707.06347), on verl alone."""

    num_generations: int = Field(1, ge=1, description="Answers to each prompt.")
    gamma: float = Field(1.0, gt=0, le=1, description="Discount of later rewards.")
    lam: float = Field(1.0, gt=0, le=1, description="λ of the generalised advantage estimation.")
    cliprange: float = Field(0.2, gt=0, description="Clipping of the ratio of new and old probability.")
    kl_coef: float = Field(0.001, ge=0, description="Weight of the KL to the reference, taken off the reward.")
    verl: Verl = Verl()


class Ppo(RunConfig):
    """Proximal policy optimisation, on verl."""

    stage: Literal["ppo"]
    engine: Literal["verl"] = Field("verl", description="What trains: verl on Ray.")
    method: PpoMethod
    optim: RolloutOptim = RolloutOptim()

    @model_validator(mode="after")
    def _possible(self) -> Ppo:
        check_rollouts(self)
        return self
