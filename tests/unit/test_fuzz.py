"""A little of tests/fuzz/fuzz.py at every run; the script itself takes a million inputs."""

from __future__ import annotations

from tests.fuzz.fuzz import SEEDS, fuzz


def test_no_parser_stumbles_over_mutated_text() -> None:
    found = [(name, text, repr(problem)) for name, text, problem in fuzz(2000 * len(SEEDS), seed=7)]
    assert not found, found[:3]
