"""Stage ``sft``: what it knows."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trainers.config import RunConfig
from trainers.config.section import Section


class SftMethod(Section):
    """Supervised fine-tuning: loss on the assistant's words only."""

    packing: bool = Field(False, description="Several rows in one of data.max_length tokens, kept apart.")
    neftune_noise_alpha: float | None = Field(
        None, gt=0, description="Noise on the embeddings while training (https://arxiv.org/abs/2310.05914), about 5."
    )


class Sft(RunConfig):
    """Supervised fine-tuning."""

    stage: Literal["sft"]
    method: SftMethod = SftMethod()
