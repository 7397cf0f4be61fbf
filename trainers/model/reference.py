"""The frozen model that a stage measures itself against: what it started from."""

from __future__ import annotations

from typing import Any

from trainers.config import RunConfig
from trainers.model.base import Kind
from trainers.model.device import weight_dtype
from trainers.model.load import load_frozen


def load_reference(config: RunConfig, kind: Kind = "causal") -> Any:
    """The start of this stage, bit for bit and in the same number format, frozen: the base model, with the adapter
    that the run goes on training where there is one. Needs the memory of a second model: a run with a new adapter
    has it for nothing, the same model with its adapter switched off."""
    return load_frozen(config.model, kind, weight_dtype(config))
