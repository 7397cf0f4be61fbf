"""Stages ``stage1`` and ``stage2``: plain text, in two steps, for a model that loses positions in some layers.

In stage 1 these layers learn to live without, and no other weight changes; in stage 2 all learn. Otherwise it is
continued pre-training. Stage 2 begins with what stage 1 left, whose config names the layers.
"""

from __future__ import annotations

from typing import Any

from trainers.config import RunConfig
from trainers.data.examples import Examples
from trainers.model.freeze import train_these
from trainers.model.rope import rope_free
from trainers.run import Run
from trainers.stages import cpt
from trainers.stages.prepared import Prepared


def prepare(config: RunConfig, run: Run, arguments: dict[str, Any], examples: Examples) -> Prepared:
    """As ``cpt.prepare``, and freeze what does not learn in this stage. Raises TrainerError."""
    prepared = cpt.prepare(config, run, arguments, examples)
    if config.stage == "stage1":
        model = prepared.trainer.model
        train_these(model, [weight for layer in rope_free(model) for weight in layer.parameters()])
    return prepared
