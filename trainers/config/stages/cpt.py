"""Stage ``cpt``: what it knows."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trainers.config import RunConfig
from trainers.config.section import Section


class CptMethod(Section):
    """Continued pre-training: the next token of plain text."""

    packing: bool = Field(True, description="Fill blocks of data.max_length with whole or cut documents, kept apart.")
    append_eos: bool = Field(True, description="End every document with the tokenizer's end token.")


class Cpt(RunConfig):
    """Continued pre-training."""

    stage: Literal["cpt"]
    method: CptMethod = CptMethod()
