"""Which parameters learn: chosen by patterns on their names, or by layer."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from torch.nn import Parameter

from trainers.errors import InputProblem

log = logging.getLogger(__name__)


def freeze(model: Any, patterns: list[str]) -> None:
    """Stop the parameters whose names match from learning. Raises InputProblem for a pattern without a match."""
    for weight in _matching(model, patterns, "model.freeze"):
        weight.requires_grad = False
    _say(model)


def train_only(model: Any, patterns: list[str]) -> None:
    """Let nothing but the parameters whose names match learn. Raises InputProblem for a pattern without a match."""
    train_these(model, _matching(model, patterns, "model.train_only"))


def train_these(model: Any, chosen: Iterable[Parameter]) -> None:
    """Let nothing but these parameters learn."""
    kept = {id(weight) for weight in chosen}
    for weight in model.parameters():
        weight.requires_grad = id(weight) in kept
    _say(model)


def _matching(model: Any, patterns: list[str], field: str) -> list[Parameter]:
    """The learning parameters that match any of the patterns. A tied weight goes by each of its names."""
    learning = {
        _plain(name): weight for name, weight in model.named_parameters(remove_duplicate=False) if weight.requires_grad
    }
    found = []
    for pattern in patterns:
        matches = [weight for name, weight in learning.items() if fnmatchcase(name, pattern)]
        if not matches:
            near = get_close_matches(pattern.replace("*", ""), learning, n=3, cutoff=0) or list(learning)[:3]
            raise InputProblem(
                f"{field}: no parameter that learns is called {pattern}",
                hint=f"names look like {', '.join(near)}",
            )
        found += matches
    return found


def _plain(name: str) -> str:
    """The name without what PEFT puts around it: ``model.layers.0.self_attn.q_proj.lora_A.weight``."""
    return name.removeprefix("base_model.model.").replace(".default.", ".")


def _say(model: Any) -> None:
    weights = list(model.parameters())
    learning = [weight for weight in weights if weight.requires_grad]
    if not learning:
        raise InputProblem("no parameter is left that learns", hint="check model.freeze and model.train_only")
    log.info(
        "%d of %d parameter tensors learn, %d of %d numbers",
        len(learning),
        len(weights),
        sum(size(weight) for weight in learning),
        sum(size(weight) for weight in weights),
    )


def size(weight: Any) -> int:
    """Numbers in a weight of all processes; under ZeRO-3 one process holds none of most weights."""
    return int(getattr(weight, "ds_numel", weight.numel()))
