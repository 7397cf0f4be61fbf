"""The table of the largest batches for a recipe: the common types of GPU, and those that are here."""

from __future__ import annotations

from dataclasses import dataclass

from clusterctl.errors import NotFound
from clusterctl.plan import largest
from clusterctl.runs.draft import Draft, draft_or_nearest
from clusterctl.runs.inventory import inventory
from clusterctl.runs.request import Request
from clusterctl.settings import Settings
from trainers import hardware


@dataclass(frozen=True)
class Largest:
    """The table of one run. ``length`` is data.max_length, which every row of data is taken to have."""

    name: str
    model: str
    stage: str
    length: int
    exact: bool
    columns: tuple[str, ...]
    rows: tuple[largest.Row, ...]


def tables(request: Request, settings: Settings) -> list[Largest]:
    """A table for each run of a recipe.

    Raises:
        NotFound: a model of which nothing is known here.
        UsageProblem and others: as ``draft``.
    """
    drafts, _ = draft_or_nearest(request, settings)
    offers = inventory(drafts[0].plan.scheduler, settings.site()).offers
    here = {kind: known for offer in offers if (kind := offer.gpu_type) and (known := hardware.find(kind))}
    types = hardware.types()
    keys = {key: types[key] for key in largest.COMMON if key in types}
    rows = [(key, known, known in here.values()) for key, known in keys.items()]
    rows += [(kind, known, True) for kind, known in here.items() if known not in keys.values()]
    return [_table(one, sorted(rows, key=lambda row: (row[1].usable, row[0]))) for one in drafts]


def _table(one: Draft, types: list[tuple[str, hardware.GpuType, bool]]) -> Largest:
    config, shape = one.composed.config, one.composed.shape
    if shape is None:
        raise NotFound(
            f"{config.model.model_name_or_path} is not known here: its memory cannot be reckoned",
            hint="download the model, or name a shipped one: clusterctl plan says the nearest",
        )
    return Largest(
        config.name,
        config.model.model_name_or_path,
        config.stage,
        config.data.max_length,
        shape.exact,
        tuple(saving.name for saving in largest.savings(config)),
        tuple(largest.table(config, shape, types)),
    )
