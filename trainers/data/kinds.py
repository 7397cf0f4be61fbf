"""What a row becomes: one type for each kind of stage. Light: no library is needed to read rows.

Every type has ``origin``, the file and row that it comes from, for error messages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from trainers.data.rows import Skipped
from trainers.errors import InputProblem

Message = dict[str, str]
"""``role`` (system, user or assistant) and ``content``, which is never empty."""

Conversation = list[Message]


@dataclass(frozen=True)
class Example:
    """Stage sft: a conversation that ends with the assistant."""

    messages: Conversation
    origin: str


@dataclass(frozen=True)
class Text:
    """Stages cpt, mlm, stage1, stage2: one document, not empty."""

    text: str
    origin: str


@dataclass(frozen=True)
class Preference:
    """Stages dpo and reward: a prompt and two ways to go on.

    ``prompt`` ends with the user. ``chosen`` and ``rejected`` are what follows it: they begin and end with
    the assistant, are one message nearly always, and differ. Plain strings have become messages too: the
    prompt one of the user, each side one of the assistant.
    """

    prompt: Conversation
    chosen: Conversation
    rejected: Conversation
    origin: str


@dataclass(frozen=True)
class Labelled:
    """Stage kto: a prompt that ends with the user, what the assistant answered, and whether that was good."""

    prompt: Conversation
    completion: Conversation
    label: bool
    origin: str


@dataclass(frozen=True)
class Prompt:
    """Stages grpo, rloo, ppo: a prompt that ends with the user. ``columns`` holds all that the row has beside
    it, such as answer or solution, under the names in the file (or ours, where data.columns maps them)."""

    prompt: Conversation
    columns: dict[str, Any]
    origin: str


@dataclass(frozen=True)
class Texts:
    """Documents that are read anew at every walk and never all in memory. May be walked any number of times, and
    pickled. A walk raises InputProblem: at its end for bad rows, or when there was no document."""

    rows: Callable[[], Iterable[Text]]
    skipped: Skipped
    """What the newest walk left out; complete once the walk has ended."""

    @property
    def empty(self) -> int:
        """Empty documents that the newest walk passed over."""
        return self.skipped.empty

    def __iter__(self) -> Iterator[Text]:
        self.skipped.begin()
        document = None
        for document in self.rows():
            yield document
        self.skipped.settle()
        if document is None:
            raise InputProblem(f"no text to use, {self.skipped.empty} rows are empty", hint="check the data files")
