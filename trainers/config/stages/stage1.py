"""Stage ``stage1``, and what it shares with ``stage2``."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from trainers.config import RunConfig
from trainers.config.stages.cpt import CptMethod


class StagedMethod(CptMethod):
    """Two-stage training on plain text: the RoPE-free layers alone, then all."""


class Staged(RunConfig):
    """Two-stage training."""

    method: StagedMethod = StagedMethod()

    @model_validator(mode="after")
    def _has_layers(self) -> Staged:
        if self.model.adapter != "none":
            raise ValueError(f"{self.stage} trains the model's own weights: set model.adapter to none")
        if self.stage == "stage1":
            # Stage 2 finds them in the config of the model that stage 1 made.
            if not self.model.rope_free_layers:
                raise ValueError("stage1 needs model.rope_free_layers: the layers that lose their positions")
            if self.model.freeze or self.model.train_only:
                raise ValueError("stage1 trains the layers of model.rope_free_layers: drop freeze and train_only")
        return self


class Stage1(Staged):
    """Only the RoPE-free layers learn."""

    stage: Literal["stage1"]
