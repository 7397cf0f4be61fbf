"""Which of several placements ends first: queue and run together, with the reason for each place. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clusterctl import durations
from clusterctl.model import QueueStart
from clusterctl.plan.estimates import NOW, Fit, Verdict

NEAR = 1.10
"""Ends that are less than a tenth apart count as equal: the estimates are no better. Then the frugal one wins."""

SLACK = 300.0
"""Seconds. Ends so near to each other count as equal too: nobody books four cards to be done five minutes earlier."""


@dataclass(frozen=True)
class Placement:
    """A profile that a run could have. Times in seconds; all of them are estimates.

    ``seconds`` is the run itself, None where it cannot be reckoned; ``start`` None where the scheduler was not asked.
    ``impossible`` says why it cannot be had at all, whatever the memory says. ``tested``: a test or a run of this very
    configuration on such a card has ended well.
    """

    profile: str
    gpu_type: str
    gpus: int
    nodes: int
    usable: int | None
    verdict: Verdict
    seconds: float | None = None
    time_limit: int = 0
    start: QueueStart | None = None
    impossible: str = ""
    tested: bool = False

    @property
    def possible(self) -> bool:
        """A job of this kind could begin and has memory enough, as far as anybody knows."""
        refused = self.start is not None and self.start.refused
        return not self.impossible and not refused and self.verdict.fit is not Fit.NOT

    @property
    def starts_at(self) -> float | None:
        """Unix seconds of the estimated start; None where nobody knows."""
        return self.start.at if self.start else None


@dataclass(frozen=True)
class Place:
    """A placement in the order, with the reason in words. ``wait`` and ``finish`` are seconds from now."""

    placement: Placement
    wait: float | None
    finish: float | None
    reason: str


def rank(placements: Sequence[Placement], now: float) -> list[Place]:
    """The placements, the one to take first. The impossible ones stand at the end.

    What may not fit comes behind all that does, and several nodes only where nothing else will do. An end that is not
    known comes after all that are.
    """
    possible = [one for one in placements if one.possible]
    groups: dict[tuple[bool, bool], list[Placement]] = {}
    for one in possible:
        groups.setdefault((one.verdict.fit is Fit.UNKNOWN, one.nodes > 1), []).append(one)
    order = [one for key in sorted(groups) for one in _in_order(groups[key], now)]
    order += [one for one in placements if not one.possible]
    best = order[0] if possible else None
    return [Place(one, _wait(one, now), _finish(one, now), _reason(one, best, placements, now)) for one in order]


def _in_order(group: Sequence[Placement], now: float) -> list[Placement]:
    """By end; of those about as early as the first the frugal one goes to the front, of equal ones the first named."""
    known = [one for one in group if _finish(one, now) is not None]
    unknown = sorted((one for one in group if _finish(one, now) is None), key=lambda one: _without_end(one, now))
    if known:
        first = min(_finish(one, now) or 0.0 for one in known)
        winner = min((one for one in known if _near(_finish(one, now) or 0.0, first)), key=_cost)
        known.sort(key=lambda one: (one is not winner, _finish(one, now), _cost(one)))
    return known + unknown


def _without_end(one: Placement, now: float) -> tuple[object, ...]:
    """Where the end is not known: what starts first, then what runs shortest, then what costs least."""
    wait, seconds = _wait(one, now), one.seconds
    return (wait is None, wait or 0.0, seconds is None, seconds or 0.0, _cost(one))


_DEARER = ("is tight", "was not tested", "takes more cards", "takes a larger card")
_CHEAPER = ("fits with more room", "was tested", "takes fewer cards", "takes a smaller card")


def _cost(one: Placement) -> tuple[bool, bool, int, int]:
    """What is given up for it: room to spare, a test that showed that it works, cards, the size of a card."""
    return (one.verdict.fit is Fit.TIGHT, not one.tested, one.gpus, one.usable or 0)


def _differ(one: Placement, other: Placement) -> str:
    """The first thing in which one is dearer or cheaper than another; empty where there is none."""
    costs = zip(_cost(one), _cost(other), _DEARER, _CHEAPER, strict=True)
    return next((more if mine > its else less for mine, its, more, less in costs if mine != its), "")


def _wait(one: Placement, now: float) -> float | None:
    return None if one.starts_at is None else max(0.0, one.starts_at - now)


def _finish(one: Placement, now: float) -> float | None:
    wait = _wait(one, now)
    return None if wait is None or one.seconds is None else wait + one.seconds


def _near(end: float, other: float) -> bool:
    """Whether two ends count as equal."""
    return abs(end - other) <= max(SLACK, (NEAR - 1) * min(end, other))


def _reason(one: Placement, best: Placement | None, placements: Sequence[Placement], now: float) -> str:
    if one.impossible:
        return one.impossible
    if one.verdict.fit is Fit.NOT:
        return f"does not fit: {one.verdict.why}"
    if one.start is not None and one.start.refused:
        return f"the scheduler would refuse it: {one.start.why}"
    if best is None or one is best:
        return _best(one, placements, now)
    if one.verdict.fit is Fit.UNKNOWN and best.verdict.fit is not Fit.UNKNOWN:
        return f"may not fit: {one.verdict.why}"
    if one.nodes > 1 and best.nodes == 1:
        return "takes several nodes where one will do"
    return _compared(one, best, now)


def _best(one: Placement, placements: Sequence[Placement], now: float) -> str:
    fit = {Fit.TIGHT: ", but it is tight", Fit.UNKNOWN: ", if it fits"}.get(one.verdict.fit, "")
    mine = _finish(one, now)
    if mine is None:
        guess = "takes the fewest cards" if one.seconds is None else "runs shortest"
        known = "starts first" if _wait(one, now) is not None else guess
        return f"{known}; when it ends is not known{fit}"
    others = [other for other in placements if other.possible and other is not one and other.nodes == one.nodes]
    ends = [(end, other) for other in others if (end := _finish(other, now)) is not None]
    near = [(end, other) for end, other in ends if _near(end, mine)]
    first = min(near, key=lambda pair: pair[0], default=None)
    if first is not None and first[0] < mine and (why := _differ(one, first[1])):
        return f"ends about as soon as {first[1].profile} and {why}{fit}"
    return f"ends first{fit}"


def _compared(one: Placement, best: Placement, now: float) -> str:
    mine, its = _finish(one, now), _finish(best, now)
    if mine is None:
        why = one.start.why if one.start and one.start.at is None else ""
        return f"its {'start' if _wait(one, now) is None else 'duration'} is not known{f': {why}' if why else ''}"
    if its is None:
        return ""
    if _near(mine, its):
        return f"ends at about the same time and {_differ(one, best) or 'is no better'}"
    words = f"ends {durations.words(mine - its)} later"
    wait, best_wait = _wait(one, now) or 0.0, _wait(best, now) or 0.0
    return f"{words}: it waits {durations.words(wait)}" if wait > best_wait + NOW else words
