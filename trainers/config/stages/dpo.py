"""Stage ``dpo``: what it knows. Names and defaults are TRL's."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from trainers.config import RunConfig
from trainers.config.section import OneOrMany, Section
from trainers.config.sections import Optim


class DpoMethod(Section):
    """Direct preference optimisation (https://arxiv.org/abs/2305.18290) on TRL's DPOTrainer."""

    beta: float = Field(0.1, gt=0, description="How much leaving the reference costs.")
    loss_type: Annotated[
        list[
            Literal[
                "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot",
                "aot_unpaired", "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm",
            ]
        ],
        Field(min_length=1),
        OneOrMany,
    ] = Field(["sigmoid"], description="TRL's losses; several are added with loss_weights.")  # fmt: skip
    loss_weights: list[float] = Field([], description="A weight for each of loss_type; empty: 1 each.")
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="Share of the pairs believed to be the wrong way.")
    precompute_ref_log_probs: bool = Field(
        False, description="Score all pairs with the reference before training: then it needs no memory while training."
    )
    kl_prompts: int = Field(
        8, ge=0, description="Held-out pairs on whose chosen answers every evaluation measures the exact KL."
    )

    @model_validator(mode="after")
    def _consistent(self) -> DpoMethod:
        losses = set(self.loss_type)
        if len(losses) < len(self.loss_type):
            raise ValueError("loss_type names a loss twice: use loss_weights")
        if self.loss_weights and len(self.loss_weights) != len(self.loss_type):
            raise ValueError(
                f"{len(self.loss_weights)} loss_weights for {len(self.loss_type)} in loss_type: one for each"
            )
        smoothed = losses & {"exo_pair", "robust", "aot", "aot_unpaired"}
        if "exo_pair" in losses and not self.label_smoothing:
            raise ValueError("loss_type exo_pair needs label_smoothing above 0, such as 0.001")
        if self.label_smoothing and not smoothed:
            raise ValueError("label_smoothing is known to loss_type robust, exo_pair, aot and aot_unpaired alone")
        return self


class PreferenceOptim(Optim):
    """Preferences are learnt in small steps: 5e-6 is for an adapter, 5e-7 for all weights."""

    learning_rate: float = Field(5e-6, gt=0, description="The learning rate at its peak.")


class Dpo(RunConfig):
    """Direct preference optimisation."""

    stage: Literal["dpo"]
    method: DpoMethod = DpoMethod()
    optim: PreferenceOptim = PreferenceOptim()
