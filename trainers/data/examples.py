"""The rows of a run: which are trained on and which are held out. Light, so that bad data is found at once."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from trainers.config import RunConfig
from trainers.data.formats import Example, read_examples
from trainers.errors import InputProblem


@dataclass(frozen=True)
class Examples:
    """The rows of a run."""

    train: list[Example]
    held_out: list[Example]


def load_examples(run: RunConfig) -> Examples:
    """Training and held-out rows. What is held out depends on the seed and the files alone, so it
    stays the same when max_train_samples changes. Raises InputProblem."""
    config, seed = run.data, run.optim.seed

    def load(files: list[str]) -> list[Example]:
        return [
            example
            for name in files
            for example in read_examples(Path(name), config.format, config.columns, config.system)
        ]

    train, held_out = load(config.train_files), load(config.eval_files)
    if config.validation_split:
        if len(train) < 2:
            raise InputProblem("one row cannot be split", hint="drop data.validation_split or add rows")
        count = min(max(1, round(len(train) * config.validation_split)), len(train) - 1)
        chosen = set(random.Random(seed).sample(range(len(train)), count))  # noqa: S311  (no secret)
        held_out = [row for index, row in enumerate(train) if index in chosen]
        train = [row for index, row in enumerate(train) if index not in chosen]
    return Examples(train[: config.max_train_samples], held_out[: config.max_eval_samples])
