"""Rows that are made while training: nothing is stored, and nobody knows how many there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from datasets import IterableDataset

from trainers.config import RunConfig
from trainers.data.examples import Examples
from trainers.data.packing import Row
from trainers.data.tokenised import make_rows
from trainers.errors import InputProblem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def stream(config: RunConfig, tokenizer: PreTrainedTokenizerBase, examples: Examples) -> IterableDataset:
    """The training rows of a run in the order of the files, from the first one again behind the last.

    Every process reads all of it and takes its share of the batches; of the workers of a data loader only the
    first has work. A resumed run reads again up to where it was.
    """
    return IterableDataset.from_generator(partial(_endless, config, tokenizer, examples))


def _endless(config: RunConfig, tokenizer: PreTrainedTokenizerBase, examples: Examples) -> Iterator[Row]:
    while True:
        row = None
        for row in make_rows(config, tokenizer, examples.train, "training", Counter()):
            yield row
        if row is None:
            raise InputProblem("no training rows are left", hint="look at data.train_files")
