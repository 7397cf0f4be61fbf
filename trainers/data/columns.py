"""What a column of a row says: text, messages, a prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from trainers.data.kinds import Conversation
from trainers.data.messages import characters, conversation, is_conversation, is_transcript, transcript
from trainers.data.rows import BadRow

Fields = Mapping[str, Any]

Ask = Callable[[Fields], Conversation]
"""Makes a row's prompt, which ends with the user. Raises BadRow."""


def text(row: Fields, column: str, *, may_be_empty: bool = False) -> str:
    """The text of a column. Raises BadRow."""
    value = row.get(column)
    if value is None and not may_be_empty:
        raise BadRow(f"no {column}")
    if value is not None and not isinstance(value, str):
        raise BadRow(f"{column} is a JSON {type(value).__name__}, not text")
    if not (value or "").strip() and not may_be_empty:
        raise BadRow(f"{column} is empty")
    return characters(value or "", column)


def turns(row: Fields, column: str) -> Conversation | str:
    """Messages, where a column holds a list of them or a transcript, else its text. Neither is empty."""
    value = row.get(column)
    if is_conversation(value):
        messages = conversation(value, column)
        if not messages:
            raise BadRow(f"{column} is empty")
        return messages
    said = text(row, column)
    return transcript(said, column) if is_transcript(said) else said


def with_system(messages: Conversation, row: Fields, default: str | None) -> Conversation:
    """The messages with the row's system message, else the default, in front, unless they have one."""
    system = text(row, "system", may_be_empty=True).strip() or default
    if system and (not messages or messages[0]["role"] != "system"):
        return [{"role": "system", "content": system}, *messages]
    return messages


def plain(column: str) -> Ask:
    """Text that the user says."""
    return lambda row: [{"role": "user", "content": text(row, column)}]


def instruction(*columns: str) -> Ask:
    """What the user says in several columns, one below the other. All but one may be empty."""

    def ask(row: Fields) -> Conversation:
        parts = [text(row, column, may_be_empty=True) for column in columns]
        if not any(part.strip() for part in parts):
            raise BadRow(f"{' and '.join(columns)} {'are both' if len(columns) > 1 else 'is'} empty")
        return [{"role": "user", "content": "\n\n".join(part for part in parts if part.strip())}]

    return ask


def _open(column: str) -> Ask:
    """Text, messages or a transcript, and then it is the assistant's turn."""

    def ask(row: Fields) -> Conversation:
        said = turns(row, column)
        messages = [{"role": "user", "content": said}] if isinstance(said, str) else said
        if messages[-1]["role"] != "user":
            raise BadRow(f"{column} ends with the {messages[-1]['role']}, not with the user")
        return messages

    return ask


PROMPTS: tuple[tuple[tuple[str, ...], Ask], ...] = (
    (("messages",), _open("messages")),
    (("conversations",), _open("conversations")),
    (("instruction", "prompt"), instruction("instruction", "prompt")),
    (("instruction", "input"), instruction("instruction", "input")),
    (("instruction",), instruction("instruction")),
    (("prompt",), _open("prompt")),
)
"""The columns that hold a prompt, and how to read it. Those that use more columns come first."""
