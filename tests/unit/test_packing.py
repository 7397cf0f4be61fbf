"""Packing and the arithmetic of steps: pure functions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainers.data.arithmetic import count_steps
from trainers.data.packing import best_fit, pack


@given(st.lists(st.integers(1, 20), max_size=200))
def test_every_row_is_in_one_group_and_no_group_is_too_long(lengths: list[int]) -> None:
    groups = best_fit(lengths, 20)
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in group) <= 20 for group in groups)
    # No two groups would go into one.
    sums = sorted(sum(lengths[index] for index in group) for group in groups)
    assert len(sums) < 2 or sums[0] + sums[1] > 20


def test_blocks_hold_all_tokens_and_are_nearly_full() -> None:
    dice = np.random.default_rng(0)
    rows = [{"input_ids": np.arange(n), "labels": -np.arange(n)} for n in dice.integers(2, 65, 5000)]
    blocks = list(pack(iter(rows), 64))
    parts = []
    for block in blocks:
        ends = np.cumsum(block["seq_lengths"])
        assert ends[-1] == len(block["input_ids"]) <= 64
        assert (block["labels"] == -block["input_ids"]).all()
        parts += [len(part) for part in np.split(block["input_ids"], ends[:-1]) if (part == np.arange(len(part))).all()]
    assert sorted(parts) == sorted(len(row["input_ids"]) for row in rows)
    assert sum(parts) > 0.97 * 64 * len(blocks)


@pytest.mark.parametrize(
    ("rows", "batch", "processes", "accumulation", "epochs", "per_epoch", "total"),
    [
        (1000, 2, 4, 8, 3.0, 16, 48),
        (1000, 2, 4, 8, 0.5, 16, 8),
        (1024, 2, 4, 8, 1.0, 16, 16),
        (1025, 2, 4, 8, 1.0, 17, 17),
        (3, 2, 4, 8, 2.0, 1, 2),
    ],
)
def test_steps(
    rows: int, batch: int, processes: int, accumulation: int, epochs: float, per_epoch: int, total: int
) -> None:
    steps = count_steps(rows, batch, processes, accumulation, epochs)
    assert (steps.per_epoch, steps.total) == (per_epoch, total)


def test_steps_in_words() -> None:
    assert count_steps(1000, 2, 4, 8, 3.0).words() == (
        "1000 rows; effective batch 64 = 2 a device x 4 processes x 8 accumulated; "
        "16 steps an epoch x 3 epochs = 48 steps"
    )
    assert count_steps(1000, 2, 4, 8, 3.0, 8).words().endswith("16 steps an epoch x 0.5 epochs = 8 steps (max_steps)")
