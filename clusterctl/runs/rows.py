"""How many rows a run has and how long they are, as far as a login node can tell without a tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, is_dataclass
from itertools import islice
from math import ceil
from pathlib import Path
from typing import Any

from clusterctl.errors import UsageProblem
from clusterctl.plan.batch import ROLLOUTS
from trainers.config import RunConfig

_SAMPLE = 1000
"""Rows whose length is looked at: the mean of a thousand is good enough for an estimate of hours."""

_LATIN, _OTHER = 3.5, 1.6
"""Characters of a token: 3 to 4 of English, 1.5 to 1.8 Chinese ones (Qwen's documentation, "Key concepts")."""

_MESSAGE = 8
"""Tokens that a chat template puts around a message: ChatML's start, role, end and line breaks."""

_BYTES = 2.0
"""Bytes of a token at least, in any row as a whole: half of what English has, two thirds of what Chinese has. Digits
may be tokens of their own. A choice, on the safe side."""

_TEMPLATE = 256
"""Tokens that a chat template adds to a row at most; SmolLM3's default system prompt has about 220."""


@dataclass(frozen=True)
class Rows:
    """``count`` is exact, None where only the run will know. ``about`` is an estimate of it where count is None.

    ``length`` is the mean length of one sequence in tokens (of rollouts prompt and answer, of pairs one of the two)
    and ``basis`` says where it comes from. ``unit`` is what the run counts. ``most``: tokens that no sequence has more
    of, before it is cut; generous, None where only data.max_length bounds them. ``held_out``: rows that it is measured
    on, None where only the run will know.
    """

    count: int | None
    about: int | None
    length: float
    basis: str
    unit: str = "rows"
    most: int | None = None
    held_out: int | None = None

    @property
    def best(self) -> int | None:
        """The count, else what it is about."""
        return self.count if self.count is not None else self.about


def look(config: RunConfig) -> Rows:
    """Read what can be read here: plain files that are not too large. Nothing is tokenised, so lengths are guesses.

    Raises:
        UsageProblem: rows that no run could read.
    """
    from trainers.errors import InputProblem

    key = _key(config)
    try:
        if key not in _SEEN:
            _SEEN[key] = _look(config)
        return _SEEN[key]
    except InputProblem as e:
        raise UsageProblem(e.message, hint=e.hint) from e


_SEEN: dict[tuple[object, ...], Rows] = {}
"""What was looked at already: to choose, to size and to tell all need it."""


def _key(config: RunConfig) -> tuple[object, ...]:
    """All that the rows and their lengths depend on, the state of the files included."""
    data, method = config.data, config.method
    names = [Path(name) for name in (*data.train_files, *data.eval_files)]
    states = [(found.st_size, found.st_mtime_ns) for name in names if name.is_file() and (found := name.stat())]
    limits = (packed(config), getattr(method, "max_completion_length", None), config.optim.seed)
    return (config.stage, str(config.engine), data.model_dump_json(), *limits, *states)


def longest() -> Callable[[RunConfig], int | None]:
    """Finds ``Rows.most`` of one run, whose files are read once only; None also where they cannot be read."""
    known: list[int | None] = []

    def find(config: RunConfig) -> int | None:
        if not known:
            try:
                known.append(look(config).most)
            except UsageProblem:
                known.append(None)  # said where the rows are examined
        return known[0]

    return find


def _look(config: RunConfig) -> Rows:
    from trainers.data.examples import LOOK, TEXT_STAGES, load_examples
    from trainers.data.sources import is_plain

    data = config.data
    blocks = config.stage in TEXT_STAGES or packed(config)
    unit = "blocks" if blocks else "rows"
    names = (*data.train_files, *data.eval_files)
    plain = all(is_plain(name) for name in names)
    if not plain or data.streaming or sum(Path(name).stat().st_size for name in data.train_files) > LOOK:
        return Rows(None, None, _longest(config), "the longest allowed: the rows are not here to be read", unit)
    examples = load_examples(config)
    train = examples.train
    if config.stage in TEXT_STAGES:
        total = sum(_guess(text.text) for text in train)
        return Rows(None, _blocks(total, config), data.max_length, "full blocks", unit)
    sample = [_row(example, config) for example in islice(train, _SAMPLE)]
    mean = sum(sample) / len(sample)
    if blocks:
        return Rows(None, _blocks(mean * len(train), config), data.max_length, "full blocks", unit)
    basis = f"about {mean:.0f} tokens, guessed from the characters of {len(sample)} rows"
    most = _most([*train, *examples.held_out], config)
    return Rows(len(train), None, mean, basis, unit, most, len(examples.held_out))


def _most(examples: list[Any], config: RunConfig) -> int | None:
    """What no sequence is longer than, where that is less than the length at which it is cut."""
    if config.stage == "kto" or str(config.engine) == "verl":
        # KTO puts answers behind the prompts of other rows; verl fills every sequence up.
        return None
    most = max(_at_most(text) for example in examples for text in _texts(example, config))
    return most if most < config.data.max_length else None


def packed(config: RunConfig) -> bool:
    """Whether rows share blocks."""
    return bool(getattr(config.method, "packing", False))


def _longest(config: RunConfig) -> float:
    answer = config.method.max_completion_length if config.stage in ROLLOUTS else 0
    return float(config.data.max_length + answer)


def _blocks(tokens: float, config: RunConfig) -> int:
    return max(1, ceil(tokens / config.data.max_length))


def _row(example: Any, config: RunConfig) -> float:
    """Tokens of one sequence of a row, cut where the run cuts it."""
    texts = _texts(example, config)
    # The answers of rollouts are the model's own; the longest that are allowed is what the time must do for.
    answer = config.method.max_completion_length if config.stage in ROLLOUTS else 0
    return sum(min(_tokens(text, _guess), float(config.data.max_length)) + answer for text in texts) / len(texts)


def _texts(example: Any, config: RunConfig) -> list[list[Any]]:
    """What stands in each sequence that is made of a row, and is cut at data.max_length."""
    if config.stage in ROLLOUTS:
        return [[example.prompt]]
    if config.stage in ("dpo", "reward"):
        return [[example.prompt, example.chosen], [example.prompt, example.rejected]]
    return [[getattr(example, field.name) for field in fields(example) if field.name != "origin"]]


def _at_most(value: Any) -> int:
    """Tokens that a sequence has at most, template included."""
    return ceil(_tokens(value, _bound)) + _TEMPLATE


def _tokens(value: Any, of_text: Callable[[str], float]) -> float:
    """Tokens of all text in a value."""
    if isinstance(value, str):
        return of_text(value)
    if isinstance(value, dict):
        return _tokens(value.get("content", ""), of_text) + _MESSAGE
    if is_dataclass(value):
        return sum(_tokens(getattr(value, field.name), of_text) for field in fields(value))
    return sum(_tokens(one, of_text) for one in value) if isinstance(value, Iterable) else 0.0


def _guess(text: str) -> float:
    latin = sum(character < "\u0250" for character in text)
    return latin / _LATIN + (len(text) - latin) / _OTHER


def _bound(text: str) -> float:
    digits = sum(text.count(digit) for digit in "0123456789")
    return (len(text.encode("utf-8", "replace")) - digits) / _BYTES + digits
