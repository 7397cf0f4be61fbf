"""The verdict in words: card and node both told, a bound that is more is no 'no'."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clusterctl.plan.estimates import Fit, Memory, Term
from clusterctl.plan.fit import GIB, on_host, verdict

MEMORY = Memory((Term("weights", 60 * GIB, "", ""),), (Term("loading", 100 * GIB, "", ""),))
BOUND = replace(MEMORY, exact=False)


def test_card_and_node_are_both_told() -> None:
    found = verdict(MEMORY, 80 * GIB, "A800", host_usable=90 * GIB)
    assert found.fit is Fit.NOT
    assert found.why == "needs 60.0 GiB, an A800 has 80.0; and 100.0 GiB of the node's memory, the job gets 90.0"
    assert (found.needs, found.has, found.host_needs, found.host_has) == (60 * GIB, 80 * GIB, 100 * GIB, 90 * GIB)
    both = verdict(MEMORY, 44 * GIB, "A40", host_usable=90 * GIB)
    assert both.fit is Fit.NOT and "60.0 GiB, an A40 has 44.0; and 100.0" in both.why
    roomy = verdict(MEMORY, 80 * GIB, "A800", host_usable=101 * GIB)
    assert roomy.fit is Fit.FITS and "node" not in roomy.why and roomy.host_needs is None


def test_a_bound_that_is_more_says_nothing() -> None:
    over = verdict(BOUND, 44 * GIB, "A40")
    assert (over.fit, over.why) == (Fit.UNKNOWN, "needs at most 60.0 GiB, an A40 has 44.0")
    assert verdict(BOUND, 80 * GIB, "A800").fit is Fit.FITS
    assert verdict(BOUND, 80 * GIB, "A800", host_usable=90 * GIB).fit is Fit.UNKNOWN
    # What was measured is no bound, whatever is known of the architecture.
    measured = replace(BOUND, peak=50 * GIB, measured_in="sft-1")
    assert verdict(measured, 44 * GIB, "A40").why.startswith("needs 50.0 GiB")
    assert verdict(measured, 44 * GIB, "A40").fit is Fit.NOT


def test_a_rough_estimate_is_no_bound() -> None:
    found = verdict(replace(MEMORY, rough=True), 44 * GIB, "A40")
    assert (found.fit, found.why) == (Fit.NOT, "needs about 60.0 GiB, an A40 has 44.0")


@pytest.mark.parametrize(
    ("memory", "has", "fit"),
    [
        (MEMORY, 99, Fit.NOT),
        (MEMORY, 101, Fit.TIGHT),
        (MEMORY, 120, Fit.FITS),
        (MEMORY, None, Fit.UNKNOWN),
        (BOUND, 99, Fit.UNKNOWN),
        (None, 99, Fit.UNKNOWN),
    ],
)
def test_without_a_gpu_the_node_decides(memory: Memory | None, has: int | None, fit: Fit) -> None:
    assert on_host(memory, None if has is None else has * GIB).fit is fit
