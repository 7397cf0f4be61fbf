"""Real model classes on the meta device: every parameter with its name and shape, and no memory."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSequenceClassification
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from clusterctl.models.shape import HeadName, Shape

CLASSES: dict[HeadName, Any] = {
    "causal": AutoModelForCausalLM,
    "masked": AutoModelForMaskedLM,
    "classifier": AutoModelForSequenceClassification,
}
"""As trainers/model/base.py loads them."""


def build(values: dict[str, Any], head: HeadName) -> Any:
    """The model that transformers makes of a config.json."""
    config = CONFIG_MAPPING[values["model_type"]].from_dict(dict(values))
    config.num_labels = 1
    with torch.device("meta"):
        return CLASSES[head].from_config(config)


def differences(shape: Shape, model: Any) -> list[str]:
    """Parameters that only one of both has, or with another shape. A tied weight may go by any of its names."""
    names = defaultdict(list)
    for name, weight in model.named_parameters(remove_duplicate=False):
        names[weight].append(name)
    ours = {one.name: one.shape for one in shape.parameters}
    found = []
    if len(ours) != len(shape.parameters):
        found.append("a name twice")
    for weight, alike in names.items():
        said = [name for name in alike if name in ours]
        if len(said) != 1:
            found.append(f"{alike[0]} is there {len(said)} times")
        elif ours.pop(said[0]) != tuple(weight.shape):
            found.append(f"{said[0]} has shape {tuple(weight.shape)}")
    return found + [f"{name} is not in the model" for name in ours]
