"""Tables without rich: they fit the terminal, and what people copy out of them stays in one piece."""

from __future__ import annotations

import pytest

from clusterctl.views.text_table import table

LONG = "ends at about the same time and takes more cards than the one that was chosen"


def test_a_name_is_not_folded_and_the_line_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    text = table(("PROFILE", "NEEDS>", "WHY"), [("a800-4-zero3-offload", "64.8", LONG), ("a40-1", "9.1", "ends first")])
    lines = text.splitlines()
    assert max(map(len, lines)) <= 60
    assert lines[1].startswith("a800-4-zero3-offload   64.8  ends at about")
    assert (
        " ".join(" ".join(line.split()[2 if number == 0 else 0 :]) for number, line in enumerate(lines[1:-1])) == LONG
    )


def test_a_name_that_takes_half_of_the_terminal_is_folded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    lines = table(("KEY", "SAID BY"), [("optim.per_device_train_batch_size", LONG)]).splitlines()
    assert max(map(len, lines)) <= 50
    assert "".join(line.split()[0] for line in lines[1:3]) == "optim.per_device_train_batch_size"


def test_nothing_is_folded_into_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert len(table(("KEY", "SAID BY"), [("optim.per_device_train_batch_size", LONG)]).splitlines()) == 2
