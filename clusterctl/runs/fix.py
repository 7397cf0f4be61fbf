"""The cheapest change that makes a run fit, found by trying: the rungs of ``plan.change`` on the real configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clusterctl.compose import CAREFUL, MADE_TO_MEASURE
from clusterctl.errors import ClusterctlError
from clusterctl.plan.change import Change, rungs, together
from clusterctl.plan.estimates import Fit, Verdict
from clusterctl.plan.inventory import Inventory
from clusterctl.runs.draft import Draft, draft
from clusterctl.runs.judge import fits
from clusterctl.runs.request import Request
from clusterctl.settings import Settings

if TYPE_CHECKING:
    from clusterctl.compose import Composed

_PER_DEVICE = "optim.per_device_train_batch_size"
_MOST = 8
"""GPUs of a node that may be thought of where nobody knows how many there are."""


@dataclass(frozen=True)
class Fix:
    """``command`` is exactly what to type; of a pipeline's member, what to write into its file."""

    words: str
    command: str
    verdict: Verdict


def find(
    request: Request, settings: Settings, inventory: Inventory, drafts: Sequence[Draft], number: int
) -> Fix | None:
    """Something that makes the run ``number`` of ``drafts`` fit; None where nothing known does."""
    one, scheduler = drafts[number].composed, drafts[number].plan.scheduler
    if one.memory is None or one.usable is None:
        return None

    def outcome(changes: Sequence[Change]) -> Verdict:
        try:
            tried = draft(_with(request, one, together(changes)), settings, inventory)[number].composed
        except ClusterctlError as e:  # it does not go with this recipe, or is not there
            return Verdict(Fit.UNKNOWN, e.message)
        return fits(tried, (), "", scheduler)

    taken: list[Change] = []
    for rung in _rungs(one):
        found = outcome([*taken, rung])
        if found.fit is Fit.UNKNOWN:
            continue
        taken.append(rung)
        if found.fit is not Fit.NOT:
            taken = _needed(taken, outcome)
            change = together(taken)
            command = _with(request, one, change).typed("submit") if len(drafts) == 1 else _member(one, change)
            return Fix(change.words, command, outcome(taken))
    return None


def _rungs(one: Composed) -> Iterator[Change]:
    profile = one.profile
    most = one.offer.gpus_per_node if one.offer else _MOST
    batch_open = one.origins.get(_PER_DEVICE) in (MADE_TO_MEASURE, CAREFUL)
    return rungs(one.config, profile.gpu_type or "gpu", profile.gpus_per_node, most, batch_open=batch_open)


def _needed(taken: list[Change], outcome: Callable[[Sequence[Change]], Verdict]) -> list[Change]:
    """Without the rungs on the way up that the last one makes superfluous; the dearest are let go first."""
    needed = list(taken)
    for change in reversed(taken[:-1]):
        fewer = [other for other in needed if other is not change]
        if outcome(fewer).fit in (Fit.FITS, Fit.TIGHT):
            needed = fewer
    return needed


def _with(request: Request, one: Composed, change: Change) -> Request:
    """The request with a change. A profile that names type and number takes the place of the options for them."""
    sets = (*request.sets, *(f"{key}={value}" for key, value in change.sets.items()))
    if change.profile is None:
        return dataclasses.replace(request, sets=sets, profile=one.profile_name)
    asked = dataclasses.replace(request, sets=sets, profile=change.profile)
    return dataclasses.replace(asked, gpu_type=None, gpus=None, gpu_ids=(), mixed=False)


def _member(one: Composed, change: Change) -> str:
    """What to write at the member of a pipeline: options would change the others too."""
    words = [f"profile: {change.profile}"] if change.profile else []
    if change.sets:
        words.append("set: {" + ", ".join(f"{key}: {value}" for key, value in change.sets.items()) + "}")
    return f"at its member {one.config.name}: {', '.join(words)}"
