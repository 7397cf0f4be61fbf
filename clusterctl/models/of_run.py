"""The model that a run names, as far as it is known here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from clusterctl.errors import NotFound, UsageProblem
from clusterctl.models import find

if TYPE_CHECKING:
    from clusterctl.models.shape import Shape
    from trainers.config import RunConfig


def shape_of(config: RunConfig, hub_home: str | None, name: str | None = None) -> Shape:
    """The run's model, or another one that it reads, with the head that the run gives it.

    Raises:
        NotFound, UsageProblem: as ``find.shape_of``.
    """
    name = name or config.model.model_name_or_path
    # A model that rates answers has a head of its own.
    rates = name == getattr(config.method, "reward_model", None)
    revision = config.model.revision if name == config.model.model_name_or_path else None
    head = "classifier" if rates else find.head_of(config.stage)
    return find.shape_of(name, hub_home=hub_home, head=head, revision=revision)


def known(hub_home: str | None) -> Callable[[RunConfig, str], Shape | None]:
    """Finds a model for a run, each only once; None where it is not known here."""
    found: dict[tuple[object, ...], Shape | None] = {}

    def shape(config: RunConfig, name: str) -> Shape | None:
        key = (name, config.stage, config.model.revision, getattr(config.method, "reward_model", None))
        if key not in found:
            try:
                found[key] = shape_of(config, hub_home, name)
            except (NotFound, UsageProblem):
                # The hub may have it, or a newer transformers may know it: the run itself will say.
                found[key] = None
        return found[key]

    return shape
