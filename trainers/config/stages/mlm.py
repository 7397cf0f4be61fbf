"""Stage ``mlm``: what it knows."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trainers.config import RunConfig
from trainers.config.section import Section


class MlmMethod(Section):
    """Masked language modelling of an encoder, as in BERT (https://arxiv.org/abs/1810.04805)."""

    mlm_probability: float = Field(0.15, gt=0, lt=1, description="Share of the tokens to be guessed.")
    whole_word: bool = Field(False, description="Mask all tokens of a word together.")


class Mlm(RunConfig):
    """Masked language modelling of an encoder."""

    stage: Literal["mlm"]
    method: MlmMethod = MlmMethod()
