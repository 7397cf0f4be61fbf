"""Which shapes of rows each stage knows, and which of them the rows of a file have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainers.config import Data, RunConfig
from trainers.data import preferences
from trainers.data.columns import PROMPTS, Ask, Fields, instruction, plain, text, with_system
from trainers.data.kinds import Example, Text
from trainers.data.messages import conversation
from trainers.data.rows import BadRow
from trainers.errors import InputProblem


class EmptyText(Exception):
    """A document without a visible character. It is passed over and counted."""


@dataclass(frozen=True)
class Format:
    """A shape of rows: its name in ``data.format``, the columns it needs, and how to read one row.

    ``convert`` takes the fields, the system message of rows that have none, and the origin. It raises BadRow.
    """

    name: str
    columns: tuple[str, ...]
    convert: Callable[[Fields, str | None, str], Any]


@dataclass(frozen=True)
class Formats:
    """The shapes that a stage knows. The first one whose columns are all there is taken."""

    known: tuple[Format, ...]
    keeps_all: bool = False
    """Whether columns that belong to no shape are kept, so that any name may be mapped to."""

    def reader(
        self, place: str, present: Sequence[str], columns: Mapping[str, str]
    ) -> Callable[[Fields, str | None, str], Any]:
        """How to read the rows of a file that has these columns; ``columns`` maps our names to the file's.

        Raises InputProblem when there is no way to.
        """
        ours = sorted({"system", *(name for shape in self.known for name in shape.columns)})
        for name, theirs in columns.items():
            if name not in ours and not self.keeps_all:
                raise InputProblem(f"data.columns: {name} is not a column we know", hint=f"known are {', '.join(ours)}")
            if theirs not in present:
                raise InputProblem(
                    f"{place}: data.columns maps {name} to {theirs}, which is not there",
                    hint=f"the file has {', '.join(present)}",
                )
        renamed = {theirs: name for name, theirs in columns.items()}
        # A column that is mapped to takes the place of one that has the name by chance.
        hidden = set(columns) - set(renamed)

        def rename(fields: Fields) -> dict[str, Any]:
            return {renamed.get(key, key): value for key, value in fields.items() if key not in hidden}

        shape = self._choose(place, list(rename(dict.fromkeys(present))))
        return lambda fields, system, origin: shape.convert(rename(fields), system, origin)

    def _choose(self, place: str, present: Sequence[str]) -> Format:
        for shape in self.known:
            if set(shape.columns) <= set(present):
                return shape
        looked_for = " or ".join("+".join(shape.columns) for shape in self.known)
        raise InputProblem(
            f"{place}: has the columns {', '.join(present)}; looked for {looked_for}", hint=_HINTS[self.known[0].name]
        )


_HINTS = {
    "text": "name the column that holds the text in data.text_fields",
    "preference": "name the columns in data.columns, for example {chosen: better, rejected: worse}",
    "labelled": "name the columns in data.columns, for example {completion: answer, label: good}",
    "prompt": "name the column in data.columns, for example {prompt: question}",
} | dict.fromkeys(
    ("messages", "instruction", "prompt_response", "input_output"),
    "name the columns in data.columns, for example {prompt: question, response: answer}",
)


def formats_of(config: RunConfig) -> Formats:
    """The shapes of rows that the stage of a run knows."""
    match config.stage:
        case "cpt" | "mlm" | "stage1" | "stage2":
            return _documents(config.data)
        case "dpo" | "reward":
            return _PREFERENCES
        case "kto":
            return _LABELLED
        case "grpo" | "rloo" | "ppo":
            return _PROMPTS
        case _:
            wanted = config.data.format
            return Formats(tuple(shape for shape in _CONVERSATIONS if wanted in ("auto", shape.name)))


def _answered(ask: Ask, response: str) -> Callable[[Fields, str | None, str], Example]:
    def convert(row: Fields, system: str | None, origin: str) -> Example:
        turns = [*ask(row), {"role": "assistant", "content": text(row, response)}]
        return Example(with_system(turns, row, system), origin)

    return convert


def _messages(column: str) -> Callable[[Fields, str | None, str], Example]:
    def convert(row: Fields, system: str | None, origin: str) -> Example:
        turns = conversation(row.get(column), column)
        while turns and turns[-1]["role"] != "assistant":
            turns.pop()  # what nobody answers teaches nothing
        if not turns:
            raise BadRow("no assistant turn")
        return Example(with_system(turns, row, system), origin)

    return convert


# Alpaca's instruction must not be lost because input and output are a shape of their own: what uses more comes first.
_ALPACA = _answered(instruction("instruction", "input"), "output")
_TASK = _answered(instruction("instruction", "prompt"), "response")
_CONVERSATIONS = (
    Format("messages", ("messages",), _messages("messages")),
    Format("messages", ("conversations",), _messages("conversations")),
    Format("instruction", ("instruction", "prompt", "response"), _TASK),
    Format("instruction", ("instruction", "input", "output"), _ALPACA),
    Format("prompt_response", ("prompt", "response"), _answered(plain("prompt"), "response")),
    Format("input_output", ("input", "output"), _answered(plain("input"), "output")),
)
_PREFERENCES = Formats(
    (
        *(Format("preference", (*names, "chosen", "rejected"), preferences.explicit(ask)) for names, ask in PROMPTS),
        Format("preference", ("chosen", "rejected"), preferences.implicit),
    )
)
_LABELLED = Formats(
    tuple(Format("labelled", (*names, "completion", "label"), preferences.labelled(ask)) for names, ask in PROMPTS)
)
_PROMPTS = Formats(
    tuple(Format("prompt", names, preferences.prompt(ask, names)) for names, ask in PROMPTS), keeps_all=True
)


def _documents(data: Data) -> Formats:
    """Text in the first of data.text_fields that a row has, else its messages, each a line that begins with its
    speaker. Which column it is differs from row to row."""
    chats = ("messages", "conversations")

    def convert(row: Fields, system: str | None, origin: str) -> Text:
        column = next((name for name in (*data.text_fields, *chats) if row.get(name) is not None), None)
        if column is None:
            raise BadRow(f"none of {', '.join((*data.text_fields, *chats))}")
        if column in data.text_fields:
            document = text(row, column, may_be_empty=True)
        else:
            turns = conversation(row[column], column)
            document = "\n".join(f"{turn['role']}: {turn['content']}" for turn in turns)
        if not document.strip():
            raise EmptyText
        return Text(document, origin)

    return Formats(tuple(Format("text", (name,), convert) for name in (*data.text_fields, *chats)))
