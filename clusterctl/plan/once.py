"""What is the same for every card and every batch of a run is reckoned once for all candidates of a choice."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TypeVar

from clusterctl.models.shape import Shape
from trainers.config import RunConfig

T = TypeVar("T")


def once(find: Callable[[RunConfig, Shape], T]) -> Callable[[RunConfig, Shape], T]:
    """Keeps what ``find`` says of a model and of what of it learns. It must not look at anything else of the run."""

    @wraps(find)
    def kept(config: RunConfig, shape: Shape) -> T:
        # With the model, as its cached properties are, so that it goes when the model goes.
        known: dict[tuple[str, str], T] = vars(shape).setdefault(find.__qualname__, {})
        key = (config.stage, config.model.model_dump_json(exclude={"gradient_checkpointing"}))
        if key not in known:
            known[key] = find(config, shape)
        return known[key]

    return kept
