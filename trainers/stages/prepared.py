"""What every stage hands over to be trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import TrainerCallback

from trainers.runtime.heldout import HeldOut


@dataclass(frozen=True)
class Prepared:
    """A run ready to start: a RunTrainer over a library's trainer, and what it was made of."""

    trainer: Any
    held_out: HeldOut
    rows: dict[str, int]
    """How many rows of each kind: training, held_out, truncated, dropped ..."""
    callbacks: Sequence[TrainerCallback] = field(default=())
    """The stage's own, called before those that every stage has."""
