"""Stage ``reward``: what it knows."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trainers.config import RunConfig
from trainers.config.section import Section


class RewardMethod(Section):
    """A reward model from preferences (Bradley-Terry) on TRL's RewardTrainer."""

    center_rewards_coefficient: float | None = Field(
        None, ge=0, description="Pulls the mean reward to 0; 0.01 is usual."
    )


class Reward(RunConfig):
    """A reward model."""

    stage: Literal["reward"]
    method: RewardMethod = RewardMethod()
