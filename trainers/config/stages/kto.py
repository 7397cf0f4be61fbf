"""Stage ``kto``: what it knows. Names and defaults are TRL's."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from trainers.config import RunConfig
from trainers.config.section import Section
from trainers.config.stages.dpo import PreferenceOptim


class KtoMethod(Section):
    """Kahneman-Tversky optimisation (https://arxiv.org/abs/2402.01306) on TRL's KTOTrainer: single rated answers."""

    beta: float = Field(0.1, gt=0, description="How much leaving the reference costs.")
    loss_type: Literal["kto", "apo_zero_unpaired"] = Field("kto", description="TRL's losses.")
    desirable_weight: float = Field(1.0, gt=0, description="Weight of the good answers.")
    undesirable_weight: float = Field(1.0, gt=0, description="Weight of the bad answers.")


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
