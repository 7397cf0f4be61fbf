"""The rows of a run: which are trained on and which are held out. Light, so that bad data is found at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from typing import Any

from trainers.config import Data, RunConfig
from trainers.data import sources
from trainers.data.formats import EmptyText, formats_of
from trainers.data.kinds import Conversation, Example, Labelled, Message, Preference, Prompt, Text, Texts
from trainers.data.mixing import mix, split
from trainers.data.rows import BadRow, Rows, Skipped, Unreadable, suffix
from trainers.errors import InputProblem

__all__ = [
    "Conversation",
    "Example",
    "Examples",
    "Labelled",
    "Message",
    "Preference",
    "Prompt",
    "Skipped",
    "Text",
    "Texts",
    "load_examples",
    "look_at_examples",
]

TEXT_STAGES = ("cpt", "mlm", "stage1", "stage2")

LOOK = 2**27
"""Characters that a login node looks at, of all files together: seconds, not minutes."""


@dataclass(frozen=True)
class Examples:
    """The rows of a run, of the type that its stage takes (trainers.data.kinds).

    Lists, but of stages on plain text Texts, which are read anew at every walk. ``held_out`` is an empty list
    where nothing is held out. ``skipped`` counts what the training rows leave out: of lists it is final and has
    the held-out files in it; of Texts it is that of the newest walk over ``train``.
    """

    train: Any
    held_out: Any
    skipped: Skipped


@dataclass(frozen=True)
class _Source:
    """What one entry of data.train_files or data.eval_files holds, converted. May be walked again and again."""

    name: str
    split: str
    config: RunConfig
    skipped: Skipped

    def __iter__(self) -> Iterator[Any]:
        return _convert(self.name, sources.rows(self.name, self.split, self.config.data), self.config, self.skipped)


def load_examples(config: RunConfig) -> Examples:
    """Training and held-out rows. What is held out depends on the seed and the files alone, so it stays the
    same when max_train_samples changes. Raises InputProblem; of Texts only while they are walked.
    """
    data, seed = config.data, config.optim.seed
    sources.check_apart(data)
    skipped = Skipped(leave_out=data.skip_bad_rows)
    train = [_Source(name, data.dataset_split, config, skipped) for name in data.train_files]
    if config.stage not in TEXT_STAGES:
        other = [_Source(name, data.eval_dataset_split, config, skipped) for name in data.eval_files]
        rows, other_rows = [list(source) for source in train], [list(source) for source in other]
        skipped.settle()
        if not any(rows):
            raise InputProblem("no row is left to train on", hint="all of them are bad: correct them")
        return Examples(list(_train(rows, data, seed)), list(_held_out(rows, other_rows, data, seed)), skipped)
    training = Texts(partial(_train, train, data, seed), skipped)
    if not data.eval_files and not data.validation_split:
        return Examples(training, [], skipped)
    apart = Skipped(leave_out=data.skip_bad_rows)
    train = [replace(source, skipped=apart) for source in train]
    other = [_Source(name, data.eval_dataset_split, config, apart) for name in data.eval_files]
    return Examples(training, Texts(partial(_held_out, train, other, data, seed), apart), skipped)


def _train(train: Sequence[Iterable[Any]], data: Data, seed: int) -> Iterator[Any]:
    part = partial(split, share=data.validation_split, seed=seed, held_out=False)
    if data.probabilities:
        rows = mix([part(source) for source in train], data.train_files, data.probabilities, seed)
    else:
        rows = part(chain.from_iterable(train))
    return islice(rows, data.max_train_samples)


def _held_out(train: Sequence[Iterable[Any]], other: Sequence[Iterable[Any]], data: Data, seed: int) -> Iterator[Any]:
    part = partial(split, share=data.validation_split, seed=seed, held_out=True)
    if data.eval_files:
        rows = chain.from_iterable(other)
    elif data.probabilities:
        rows = chain.from_iterable(part(source) for source in train)
    else:
        rows = part(chain.from_iterable(train))
    return islice(rows, data.max_eval_samples)


def _convert(name: str, rows: Rows, config: RunConfig, skipped: Skipped) -> Iterator[Any]:
    """What the rows of a file are to the stage. Bad rows and empty documents are noted in ``skipped``."""
    formats, data = formats_of(config), config.data
    bad, read, txt = skipped.file(name), None, suffix(name) == ".txt"
    for row in rows:
        bad.total += 1
        if isinstance(row, Unreadable):
            bad.add(row.place, row.why)
        else:
            # The one column of a txt file has no name of its own.
            fields = {data.text_fields[0]: row.fields["text"]} if txt else row.fields
            read = read or formats.reader(name, tuple(fields), data.columns)
            try:
                yield read(fields, data.system, f"{name} {row.place}")
            except BadRow as e:
                bad.add(row.place, str(e))
            except EmptyText:
                skipped.empty += 1
        if data.streaming and bad.count and not data.skip_bad_rows:
            skipped.settle()  # nobody knows where a stream ends
    if not bad.total:
        raise InputProblem(f"{name}: holds no rows", hint="a file needs at least one row of data")


def look_at_examples(config: RunConfig) -> list[str]:
    """Look at the rows that can be read without a library, in large files only at the first ones.

    Returns in words what was not looked at and what will be left out. Raises InputProblem as reading them would.
    """
    data = config.data
    sources.check_apart(data)
    entries = list(dict.fromkeys((*data.train_files, *data.eval_files)))
    for name in entries:
        sources.check_kind(name)
    plain = [name for name in entries if sources.is_plain(name)]
    limit = LOOK // max(len(plain), 1)
    # A JSON array can only be read whole.
    names = [name for name in plain if not (sources.is_long(name, limit) and suffix(name) == ".json")]
    notes = [f"{name}: its rows are looked at when the job starts" for name in entries if name not in names]
    skipped, counts = Skipped(leave_out=data.skip_bad_rows), dict.fromkeys(names, 0)
    for name in names:
        for _ in _convert(name, sources.first_rows(name, limit), config, skipped):
            counts[name] += 1
        if sources.is_long(name, limit):
            notes.append(f"{name}: only its first rows were looked at, the others are when the job starts")
    if not data.skip_bad_rows:
        skipped.settle()
    if set(data.train_files) <= set(names):
        found = [counts[name] for name in data.train_files]
        if not sum(found):
            raise InputProblem("no row is left to train on", hint="check the data files")
        for count in found if data.probabilities else [sum(found)]:
            list(split(range(min(count, 2)), data.validation_split, 0, held_out=True))
    return [*notes, *skipped.left_out()]
