"""The order of the training rows: at random, but the longest come first, once.

What does not fit into memory then fails at step 1 and not in the night, and a short test measures the peak
of the whole run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import Sampler


class LongestFirst(Sampler[int]):
    """All rows in random order, anew in every epoch; the ``first`` longest at the beginning of epoch 0.

    The order depends on the seed, the epoch and the rows alone, so a resumed run has the same.
    """

    def __init__(self, lengths: list[int], first: int, seed: int) -> None:
        self._lengths = lengths
        self._first = first
        self._seed = seed
        self._epoch = 0

    def __len__(self) -> int:
        return len(self._lengths)

    def set_epoch(self, epoch: int) -> None:
        """To be called before each epoch; the data loader does."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed + self._epoch)
        order = torch.randperm(len(self._lengths), generator=generator).tolist()
        if self._epoch == 0:
            longest = dict.fromkeys(sorted(order, key=self._lengths.__getitem__, reverse=True)[: self._first])
            order = [*longest, *(index for index in order if index not in longest)]
        yield from order


def row_lengths(rows: Any) -> list[int]:
    """Tokens of each row of a data set: of all its columns that are lists of numbers."""
    import pyarrow as pa
    from pyarrow import compute

    table = rows.with_format("arrow")[:]
    lengths = torch.zeros(table.num_rows, dtype=torch.long)
    for column in table.columns:
        if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
            lengths += torch.tensor(compute.list_value_length(column).fill_null(0).to_pylist(), dtype=torch.long)
    return lengths.tolist()
