"""From the rows of a file to conversations: which columns there are, and what they mean."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainers.data.rows import BadRow, BadRows, Row, read
from trainers.errors import InputProblem

Message = dict[str, str]
Conversation = list[Message]

ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}
"""Who speaks: the words of chat templates, and those of ShareGPT."""


@dataclass(frozen=True)
class Example:
    """A conversation that ends with the assistant, and the file and row that it comes from."""

    messages: Conversation
    origin: str


@dataclass(frozen=True)
class Format:
    """A shape of rows: its name in the configuration, the columns it needs, and how to read one row."""

    name: str
    columns: tuple[str, ...]
    convert: Callable[[Mapping[str, Any]], Conversation]


def _text(row: Mapping[str, Any], column: str, *, may_be_empty: bool = False) -> str:
    value = row.get(column)
    if value is None and not may_be_empty:
        raise BadRow(f"no {column}")
    if value is not None and not isinstance(value, str):
        raise BadRow(f"{column} is a JSON {type(value).__name__}, not text")
    if not (value or "").strip() and not may_be_empty:
        raise BadRow(f"{column} is empty")
    return _characters(value or "", column)


def _characters(text: str, what: str) -> str:
    """JSON can say half a character, which no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError as e:
        raise BadRow(f"{what} has {text[e.start]!a} without its other half, which is no character") from None
    return text


def _pair(prompt: str, response: str) -> Callable[[Mapping[str, Any]], Conversation]:
    def convert(row: Mapping[str, Any]) -> Conversation:
        return [
            {"role": "user", "content": _text(row, prompt)},
            {"role": "assistant", "content": _text(row, response)},
        ]

    return convert


def _instruction(prompt: str, response: str) -> Callable[[Mapping[str, Any]], Conversation]:
    def convert(row: Mapping[str, Any]) -> Conversation:
        question = [_text(row, "instruction", may_be_empty=True), _text(row, prompt, may_be_empty=True)]
        if not any(part.strip() for part in question):
            raise BadRow(f"instruction and {prompt} are both empty")
        return [
            {"role": "user", "content": "\n\n".join(part for part in question if part.strip())},
            {"role": "assistant", "content": _text(row, response)},
        ]

    return convert


def _messages(column: str) -> Callable[[Mapping[str, Any]], Conversation]:
    def convert(row: Mapping[str, Any]) -> Conversation:
        turns = row.get(column)
        if isinstance(turns, str):
            try:
                turns = json.loads(turns)
            except (ValueError, RecursionError) as e:
                raise BadRow(f"{column} is not valid JSON: {e}") from None
        if not isinstance(turns, list):
            raise BadRow(f"{column} is not a list of messages")
        conversation = [_message(turn, position) for position, turn in enumerate(turns, start=1)]
        while conversation and conversation[-1]["role"] != "assistant":
            conversation.pop()  # what nobody answers teaches nothing
        if not conversation:
            raise BadRow("no assistant turn")
        return conversation

    return convert


def _message(turn: Any, position: int) -> Message:
    if not isinstance(turn, dict):
        raise BadRow(f"message {position} is not an object")
    speaker = turn.get("role", turn.get("from"))
    content = turn.get("content", turn.get("value"))
    if not isinstance(speaker, str) or speaker not in ROLES:
        raise BadRow(f"message {position} has the role {speaker!r}; known are {', '.join(ROLES)}")
    if not isinstance(content, str):
        raise BadRow(f"message {position} has no text as its content")
    if not content.strip():
        raise BadRow(f"message {position} ({ROLES[speaker]}) is empty")
    return {"role": ROLES[speaker], "content": _characters(content, f"message {position}")}


FORMATS = (
    # In this order: auto takes the first whose columns are all there, so the one that uses more comes first.
    Format("messages", ("messages",), _messages("messages")),
    Format("messages", ("conversations",), _messages("conversations")),
    Format("instruction", ("instruction", "prompt", "response"), _instruction("prompt", "response")),
    Format("instruction", ("instruction", "input", "output"), _instruction("input", "output")),
    Format("prompt_response", ("prompt", "response"), _pair("prompt", "response")),
    Format("input_output", ("input", "output"), _pair("input", "output")),
)


def read_examples(path: Path, wanted: str, columns: Mapping[str, str], system: str | None) -> list[Example]:
    """Every row of a file as a conversation.

    ``wanted`` is a format's name or auto; ``columns`` maps our names to the file's; ``system`` goes in front
    of conversations that have no system message. Raises InputProblem.
    """
    rows = read(path)
    named = _rename(path, rows, columns)
    shape = _choose(path, wanted, tuple(named[0]))
    bad, examples = BadRows(str(path)), []
    for row, fields in zip(rows, named, strict=True):
        try:
            messages = shape.convert(fields)
        except BadRow as e:
            bad.add(row.place, str(e))
            continue
        if system and messages[0]["role"] != "system":
            messages.insert(0, {"role": "system", "content": system})
        examples.append(Example(messages, f"{path} {row.place}"))
    bad.raise_if_any(len(rows))
    return examples


def _rename(path: Path, rows: Sequence[Row], columns: Mapping[str, str]) -> list[dict[str, Any]]:
    """The fields of all rows under our names."""
    ours = sorted({name for shape in FORMATS for name in shape.columns})
    for name, theirs in columns.items():
        if name not in ours:
            raise InputProblem(f"data.columns: {name} is not a column we know", hint=f"known are {', '.join(ours)}")
        if theirs not in rows[0].fields:
            raise InputProblem(
                f"{path}: data.columns maps {name} to {theirs}, which is not there",
                hint=f"the file has {', '.join(rows[0].fields)}",
            )
    renamed = {theirs: name for name, theirs in columns.items()}
    # A column that is mapped to takes the place of one that has the name by chance.
    hidden = set(columns) - set(renamed)
    return [{renamed.get(key, key): value for key, value in row.fields.items() if key not in hidden} for row in rows]


def _choose(path: Path, wanted: str, present: Sequence[str]) -> Format:
    candidates = [shape for shape in FORMATS if wanted in ("auto", shape.name)]
    for shape in candidates:
        if set(shape.columns) <= set(present):
            return shape
    looked_for = " or ".join("+".join(shape.columns) for shape in candidates)
    raise InputProblem(
        f"{path}: has the columns {', '.join(present)}; looked for {looked_for}",
        hint="name the columns in data.columns, for example {prompt: question, response: answer}",
    )
