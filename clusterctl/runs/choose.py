"""Where a run goes when nobody said it: the placement that ends first, with the reasons for every place."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

from clusterctl import durations
from clusterctl.compose import Composed
from clusterctl.errors import ClusterctlError, NoFit, UsageProblem
from clusterctl.model import QueueStart, Resources, SchedulerName
from clusterctl.plan import make
from clusterctl.plan.estimates import Fit, Verdict
from clusterctl.plan.inventory import Inventory
from clusterctl.plan.rank import Place, Placement, rank
from clusterctl.runs import judge, measured, rows
from clusterctl.runs.fingerprint import fingerprint
from clusterctl.runs.starts import starts
from clusterctl.settings import Settings

if TYPE_CHECKING:
    from clusterctl.runs.request import Request

FILE_NAME = "choice.json"
"""In the run directory: the choice with all its reasons, as of the submission."""

QUESTIONS = 12
"""Requests whose queue start is asked for at most: the shortest run of each type of GPU first, then the next."""


@dataclass(frozen=True)
class Choice:
    """``profile`` is what was taken, ``reason`` why; ``places`` are all that were looked at, the best first.

    ``notes`` say what is out of use, and on what the order does not rest. Everything about time is an estimate of the
    moment ``made_at`` (Unix seconds).
    """

    profile: str
    reason: str
    places: tuple[Place, ...]
    notes: tuple[str, ...]
    made_at: float


class NothingFits(NoFit):
    """No placement will do. ``choice`` names the one that lacks least."""

    def __init__(self, message: str, *, hint: str, choice: Choice) -> None:
        super().__init__(message, hint=hint)
        self.choice = choice


def choose(
    names: Sequence[str],
    composed: Callable[[str], Composed],
    inventory: Inventory,
    request: Request,
    settings: Settings,
    scheduler: SchedulerName,
) -> Choice:
    """Take one of the profiles ``names``; ``composed`` gives the recipe under one of them.

    Raises:
        UsageProblem: the recipe is wrong whatever the profile.
        NothingFits: none of them has memory enough, or none can be had, with the number that decides for each.
    """
    now = time.time()
    placements, notes = _placements(names, composed, settings, scheduler)
    places = tuple(rank(placements, now))
    notes = [*notes, *out_of_use(inventory)]
    if not places[0].placement.possible:
        choice = Choice(_nearest(places), "lacks least, but will not do", places, tuple(notes), now)
        raise NothingFits(
            _none(places, notes), hint=f"clusterctl plan {request.recipe} --profile {choice.profile}", choice=choice
        )
    first = places[0]
    return Choice(first.placement.profile, first.reason, places, tuple(notes), now)


def out_of_use(inventory: Inventory) -> list[str]:
    """What of the GPUs takes no work now, or cannot be reached, and why."""
    out = [
        f"{offer.out} of {offer.total} {offer.gpu_type.upper()} take no work: {offer.why_out or 'no reason given'}"
        for offer in inventory.offers
        if offer.out
    ]
    return [*out, *inventory.misled]


def _placements(
    names: Sequence[str],
    composed: Callable[[str], Composed],
    settings: Settings,
    scheduler: SchedulerName,
) -> tuple[list[Placement], list[str]]:
    """A placement for each name, those that may win with their queue start."""
    points = measured.points(settings.output_root)
    found: list[tuple[Placement, Resources | None]] = []
    problem: ClusterctlError | None = None
    seen: rows.Rows | None = None
    guessed = False
    for name in names:
        try:
            one = composed(name)
        except (UsageProblem, NoFit) as e:
            problem = problem or e
            nothing = Verdict(Fit.UNKNOWN, e.message)
            found.append((Placement(name, "", 0, 0, None, nothing, impossible=e.message), None))
            continue
        seen = seen or rows.look(one.config)
        judged = judge.judge(one, seen, points, fingerprint(one) if points else "", scheduler)
        guessed = guessed or judged.about
        wanted = make.make(one, settings.site(), scheduler, python=sys.executable).resources
        found.append((_placement(name, one, judged, _obstacle(one, wanted, scheduler)), wanted))
    if problem and all(wanted is None for _, wanted in found):
        raise problem
    notes = [f"how many steps there are is guessed from the files: {seen.basis}"] if guessed and seen else []
    return _with_starts(found, starts(scheduler)), notes


def _placement(name: str, one: Composed, judged: judge.Judged, impossible: str) -> Placement:
    profile = one.profile
    return Placement(
        profile=name,
        gpu_type=judge.gpu_word(one),
        gpus=profile.nodes * profile.gpus_per_node,
        nodes=profile.nodes,
        usable=one.usable,
        verdict=judged.verdict,
        seconds=judged.duration.total if judged.duration else None,
        time_limit=profile.time,
        impossible=impossible,
        tested=judged.tested,
    )


def _obstacle(one: Composed, wanted: Resources, scheduler: SchedulerName) -> str:
    """Why such a job would wait for ever, though Slurm might take it; empty where nothing is known against it."""
    offer, asked = one.offer, wanted.time_limit
    if scheduler != "slurm" or offer is None:
        return ""
    if wanted.partition is None:
        return f"its partition is not known: write `partitions: {{{offer.gpu_type}: NAME}}` into the site file"
    if offer.max_time and asked > offer.max_time and wanted.partition == offer.partition:
        allowed, option = durations.words(offer.max_time), durations.slurm_time(offer.max_time)
        return (
            f"its time limit {durations.words(asked)} is more than partition {offer.partition} allows, {allowed}:"
            f" --set profile.time={option}"
        )
    return ""


def _with_starts(
    found: Sequence[tuple[Placement, Resources | None]], start_of: Callable[[Resources], QueueStart]
) -> list[Placement]:
    """Ask when those that may win would begin: one question for one request, and no more than QUESTIONS."""
    answers: dict[Resources, QueueStart] = {}
    asked: dict[str, QueueStart] = {}
    may_win = [(placement, wanted) for placement, wanted in found if wanted is not None and placement.possible]
    for placement, wanted in _in_turns(may_win):
        if wanted not in answers and len(answers) < QUESTIONS:
            answers[wanted] = start_of(wanted)
        unasked = QueueStart(None, f"only the {QUESTIONS} most promising were asked for")
        asked[placement.profile] = answers.get(wanted, unasked)
    return [dataclasses.replace(one, start=asked.get(one.profile)) for one, _ in found]


def _in_turns(found: Sequence[tuple[Placement, Resources]]) -> list[tuple[Placement, Resources]]:
    """What would win if all began at once comes first, of each type of GPU in turn: another may have the queue."""
    order: list[tuple[Placement, Resources]] = []
    for several in (False, True):
        types: dict[str, list[tuple[Placement, Resources]]] = {}
        for pair in sorted(found, key=lambda pair: _promise(pair[0])):
            if (pair[0].nodes > 1) is several:
                types.setdefault(pair[0].gpu_type, []).append(pair)
        order += [pair for turn in zip_longest(*types.values()) for pair in turn if pair]
    return order


def _promise(one: Placement) -> tuple[float, int]:
    return (one.seconds if one.seconds is not None else float("inf"), one.gpus)


def _none(places: Sequence[Place], notes: Sequence[str]) -> str:
    lines = [f"{place.placement.profile}: {place.reason}" for place in places]
    return "no profile here will do:\n  " + "\n  ".join([*lines, *notes])


def _nearest(places: Sequence[Place]) -> str:
    """The profile that lacks least."""

    def lacks(place: Place) -> float:
        verdict = place.placement.verdict
        if not verdict.needs or not verdict.has:
            return float("inf")
        host = verdict.host_needs / verdict.host_has if verdict.host_needs and verdict.host_has else 0.0
        return max(verdict.needs / verdict.has, host)

    return min(places, key=lacks).placement.profile
