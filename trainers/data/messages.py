"""Conversations as data sets write them: lists of messages, ShareGPT's words for them, HH-RLHF's transcripts."""

from __future__ import annotations

import json
import re
from typing import Any

from trainers.data.kinds import Conversation, Message
from trainers.data.rows import BadRow

ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}
"""Who speaks: the words of chat templates, and those of ShareGPT."""

_SPEAKER = re.compile(r"(?:^|\n\n)(Human|Assistant):")


def conversation(value: Any, column: str) -> Conversation:
    """A list of messages, or JSON text that holds one. Raises BadRow."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as e:
            raise BadRow(f"{column} is not valid JSON: {e}") from None
    if not isinstance(value, list):
        raise BadRow(f"{column} is not a list of messages")
    return [_message(turn, position) for position, turn in enumerate(value, start=1)]


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
    return {"role": ROLES[speaker], "content": characters(content, f"message {position}")}


def characters(text: str, what: str) -> str:
    """The text itself. JSON can say half a character, which no tokenizer takes: BadRow."""
    try:
        text.encode()
    except UnicodeEncodeError as e:
        raise BadRow(f"{what} has {text[e.start]!a} without its other half, which is no character") from None
    return text


def is_conversation(value: Any) -> bool:
    """Whether a value is a list of messages, or JSON text of one, as a CSV file has to write it."""
    if isinstance(value, str):
        return re.match(r'\s*\[\s*\{\s*"(role|from|content|value)"', value) is not None
    return isinstance(value, list)


def is_transcript(text: str) -> bool:
    """Whether a text is written as Anthropic's HH-RLHF has it: Human and Assistant in turn, paragraphs apart."""
    return re.match(r"\s*Human:", text) is not None and "\n\nAssistant:" in text


def transcript(text: str, column: str) -> Conversation:
    r"""The messages of ``\n\nHuman: Hi.\n\nAssistant: Hello.``; the blanks around what was said are left out.

    An empty turn of the assistant at the end only asks for an answer and is no message. Raises BadRow.
    """
    parts = _SPEAKER.split(characters(text, column).strip())[1:]
    turns = [
        {"role": role.lower(), "content": said.strip()} for role, said in zip(parts[::2], parts[1::2], strict=True)
    ]
    if turns[-1] == {"role": "assistant", "content": ""}:
        turns.pop()
    return conversation(turns, column)
