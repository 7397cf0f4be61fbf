"""The order of placements: what ends first wins, and each place has its reason."""

from __future__ import annotations

from typing import Any

from clusterctl.model import QueueStart
from clusterctl.plan.estimates import Fit, Verdict
from clusterctl.plan.rank import Place, Placement, rank

NOW = 1_000_000.0
HOUR = 3600.0
GIB = 2**30
FITS, TIGHT = Verdict(Fit.FITS, "needs 20.0 GiB, an A40 has 44.4"), Verdict(Fit.TIGHT, "needs 43.0 GiB")
TOO_LARGE = Verdict(Fit.NOT, "needs 61.2 GiB, an A40 has 44.4", 62 * GIB, 44 * GIB)


def placement(profile: str, wait: float | None, hours: float | None, **more: Any) -> Placement:
    gpus = int(profile.split("-")[1][-1])
    start = QueueStart(None, "nobody answered") if wait is None else QueueStart(NOW + wait)
    usable = (80 if profile.startswith("a800") else 44) * GIB
    values: dict[str, Any] = {"gpus": gpus, "nodes": 1, "usable": usable, "verdict": FITS, "start": start}
    kind = profile.partition("-")[0]
    return Placement(profile, kind, seconds=None if hours is None else hours * HOUR, **{**values, **more})


def names(places: list[Place]) -> list[str]:
    return [place.placement.profile for place in places]


def test_queue_and_run_count_together() -> None:
    busy, free = placement("a800-1", 9 * HOUR, 1), placement("a40-1", 0, 2)
    first, second = rank([busy, free], NOW)
    assert (first.placement, first.wait, first.finish) == (free, 0, 2 * HOUR)
    assert second.finish == 10 * HOUR and second.reason == "ends 8h 00m later: it waits 9h 00m"
    assert names(rank([placement("a800-1", 0, 1), free], NOW)) == ["a800-1", "a40-1"]


def test_what_does_not_fit_is_last_whatever_its_start() -> None:
    first, second = rank([placement("a40-1", 0, 1, verdict=TOO_LARGE), placement("a800-1", 9 * HOUR, 1)], NOW)
    assert first.placement.profile == "a800-1"
    assert second.reason == "does not fit: needs 61.2 GiB, an A40 has 44.4"
    assert not second.placement.possible


def test_of_equal_ends_the_frugal_one_wins() -> None:
    four, two, slower = placement("a800-4", 0, 1.0), placement("a40-2", 0, 1.09), placement("a40-1", 0, 1.2)
    assert names(rank([four, two, slower], NOW)) == ["a40-2", "a800-4", "a40-1"]
    assert rank([four, two], NOW)[1].reason == "ends at about the same time and takes more cards"
    # Fewer cards before smaller ones, and a tight fit is worth a card.
    assert names(rank([placement("a40-2", 0, 1), placement("a800-1", 0, 1)], NOW))[0] == "a800-1"
    assert names(rank([placement("a40-1", 0, 1, verdict=TIGHT), placement("a800-1", 0, 1)], NOW))[0] == "a800-1"


def test_nobody_books_four_large_cards_to_be_done_three_minutes_earlier() -> None:
    four, two, one = placement("a800-4", 0, 4 / 60), placement("a800-2", 0, 7 / 60), placement("a800-1", 0, 13 / 60)
    first, second, third = rank([one, two, four], NOW)
    assert first.placement is two and first.reason == "ends about as soon as a800-4 and takes fewer cards"
    assert second.placement is four and second.reason == "ends at about the same time and takes more cards"
    assert third.reason == "ends 6m 00s later"


def test_an_unknown_start_is_never_now() -> None:
    unknown, known = placement("a800-1", None, 1), placement("a40-1", 5 * HOUR, 2)
    first, second = rank([unknown, known], NOW)
    assert first.placement is known
    assert (second.wait, second.finish) == (None, None)
    assert second.reason == "its start is not known: nobody answered"
    # When nothing is known of any queue, the shortest run comes first, and says that it is a guess.
    guess, _ = rank([placement("a40-1", None, 2), unknown], NOW)
    assert guess.placement is unknown and "when it ends is not known" in guess.reason


def test_a_refusal_is_the_end_of_it() -> None:
    refused = placement("a40-1", 0, 1, start=QueueStart(None, "Invalid qos specification", refused=True))
    places = rank([refused, placement("a800-1", HOUR, 1)], NOW)
    assert names(places) == ["a800-1", "a40-1"]
    assert places[1].reason == "the scheduler would refuse it: Invalid qos specification"
    impossible = placement("a40-1", 0, 1, impossible="its time limit 1d 0h is more than partition debug allows, 30m")
    assert rank([impossible], NOW)[0].reason.startswith("its time limit") and not impossible.possible


def test_several_nodes_only_where_one_will_not_do() -> None:
    two_nodes = placement("a800-8", 0, 1, nodes=2)
    places = rank([two_nodes, placement("a800-4", 0, 3)], NOW)
    assert names(places) == ["a800-4", "a800-8"]
    assert places[1].reason == "takes several nodes where one will do"
    assert names(rank([two_nodes, placement("a800-4", 0, 3, verdict=TOO_LARGE)], NOW))[0] == "a800-8"


def test_a_duration_that_is_not_known_does_not_win() -> None:
    assert names(rank([placement("a800-1", 0, None), placement("a40-1", 0, 9)], NOW)) == ["a40-1", "a800-1"]
    assert names(rank([placement("a800-1", HOUR, None), placement("a40-1", 0, None)], NOW)) == ["a40-1", "a800-1"]


def test_of_equal_ends_the_one_that_was_tested_wins_and_says_why() -> None:
    tested, frugal = placement("a40-2", 0, 1.05, tested=True), placement("a40-1", 0, 1)
    first, second = rank([frugal, tested], NOW)
    assert first.placement is tested and first.reason == "ends about as soon as a40-1 and was tested"
    assert second.reason == "ends at about the same time and was not tested"
    # A test is no reason to wait an hour, nor to take a tight fit before one with room.
    assert names(rank([frugal, placement("a40-2", HOUR, 1, tested=True)], NOW))[0] == "a40-1"
    assert names(rank([frugal, placement("a40-2", 0, 1, tested=True, verdict=TIGHT)], NOW))[0] == "a40-1"


def test_what_may_not_fit_comes_behind_all_that_does() -> None:
    unknown = Verdict(Fit.UNKNOWN, "needs at most 61.2 GiB, an A40 has 44.4")
    maybe, sure = placement("a40-1", 0, 1, verdict=unknown), placement("a800-1", 9 * HOUR, 1)
    two_nodes = placement("a40-8", 0, 1, nodes=2)
    first, second = rank([maybe, sure], NOW)
    assert first.placement is sure and first.reason == "ends first"
    assert second.reason == "may not fit: needs at most 61.2 GiB, an A40 has 44.4"
    assert names(rank([maybe, two_nodes], NOW)) == ["a40-8", "a40-1"]
    assert rank([maybe], NOW)[0].reason == "ends first, if it fits"


def test_of_equal_ones_the_first_named_wins() -> None:
    plain, shared = placement("a40-2", 0, 1.01), placement("a40-2", 0, 1)
    assert rank([plain, shared], NOW)[0].placement is plain
