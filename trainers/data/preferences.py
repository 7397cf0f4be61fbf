"""Pairs of answers, rated answers, and prompts alone. Plain strings become messages: what is asked is the user's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from trainers.data.columns import Ask, Fields, turns, with_system
from trainers.data.kinds import Conversation, Labelled, Preference, Prompt
from trainers.data.rows import BadRow

_LABELS = {True: True, False: False, "true": True, "false": False, "1": True, "0": False}
"""What a label may be; 1 and 0 are True and False to Python."""


def explicit(ask: Ask) -> Callable[[Fields, str | None, str], Preference]:
    """Reads a pair whose prompt stands in columns of its own.

    The sides may be answers or whole conversations, which then have to begin with this prompt.
    """

    def convert(row: Fields, system: str | None, origin: str) -> Preference:
        prompt, chosen, rejected = ask(row), turns(row, "chosen"), turns(row, "rejected")
        if _whole(chosen) and _whole(rejected):
            shared, chosen, rejected = _shared_turns(chosen, rejected)
            if prompt[-1] not in shared:
                raise BadRow("prompt is not what chosen and rejected begin with")
            prompt = shared
        return _preference(with_system(prompt, row, system), chosen, rejected, origin)

    return convert


def implicit(row: Fields, system: str | None, origin: str) -> Preference:
    """Read a pair whose sides begin with the prompt: in conversations and transcripts the turns that they
    share up to the user's last, in plain text the lines, else the words, that they share."""
    chosen, rejected = turns(row, "chosen"), turns(row, "rejected")
    prompt: Conversation
    if isinstance(chosen, str) and isinstance(rejected, str):
        prompt, chosen, rejected = _shared_text(chosen, rejected)
    elif _whole(chosen) and _whole(rejected):
        prompt, chosen, rejected = _shared_turns(chosen, rejected)
    else:
        raise BadRow("no prompt: chosen and rejected do not both begin with one")
    return _preference(with_system(prompt, row, system), chosen, rejected, origin)


def labelled(ask: Ask) -> Callable[[Fields, str | None, str], Labelled]:
    """Reads a rated answer: prompt, completion and label."""

    def convert(row: Fields, system: str | None, origin: str) -> Labelled:
        label = row.get("label")
        word = label.strip().lower() if isinstance(label, str) else label
        if not isinstance(word, (bool, int, float, str)) or word not in _LABELS:
            raise BadRow(f"label is {label!r:.40}; true or false is wanted")
        completion = _answer(turns(row, "completion"), "completion")
        return Labelled(with_system(ask(row), row, system), completion, _LABELS[word], origin)

    return convert


def prompt(ask: Ask, columns: Sequence[str]) -> Callable[[Fields, str | None, str], Prompt]:
    """Reads a prompt; ``columns`` are those that it is made of, and all others are kept beside it."""

    def convert(row: Fields, system: str | None, origin: str) -> Prompt:
        rest = {name: value for name, value in row.items() if name not in (*columns, "system")}
        return Prompt(with_system(ask(row), row, system), rest, origin)

    return convert


def _whole(side: Conversation | str) -> bool:
    """Whether a side is a conversation from its beginning."""
    return not isinstance(side, str) and side[0]["role"] != "assistant"


def _preference(prompt: Conversation, chosen: Any, rejected: Any, origin: str) -> Preference:
    chosen, rejected = _answer(chosen, "chosen"), _answer(rejected, "rejected")
    if [turn["content"].strip() for turn in chosen] == [turn["content"].strip() for turn in rejected]:
        raise BadRow("chosen and rejected are equal")
    return Preference(prompt, chosen, rejected, origin)


def _answer(side: Conversation | str, column: str) -> Conversation:
    """What the assistant says, up to its last turn."""
    if isinstance(side, str):
        return [{"role": "assistant", "content": side}]
    answer = side[:]
    while answer and answer[-1]["role"] != "assistant":
        answer.pop()
    if not answer:
        raise BadRow(f"{column} has no answer")
    if answer[0]["role"] != "assistant":
        raise BadRow(f"{column} begins with the {answer[0]['role']}, not with the assistant")
    return answer


def _alike(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How many items two sequences begin with alike."""
    shorter = min(len(one), len(other))
    return next((i for i in range(shorter) if one[i] != other[i]), shorter)


def _shared_turns(chosen: Conversation, rejected: Conversation) -> tuple[Conversation, Conversation, Conversation]:
    """The turns that two conversations share up to the user's last, and the rest of both."""
    if chosen == rejected:
        raise BadRow("chosen and rejected are equal")
    shared = chosen[: _alike(chosen, rejected)]
    while shared and shared[-1]["role"] != "user":
        shared.pop()
    rest = chosen[len(shared) :], rejected[len(shared) :]
    if not shared or any(side and side[0]["role"] != "assistant" for side in rest):
        raise BadRow("the prompts of chosen and rejected differ")
    return shared, *rest


def _shared_text(chosen: str, rejected: str) -> tuple[Conversation, str, str]:
    """The whole lines, else the whole words, that two texts begin with, and the rest of both."""
    if chosen.strip() == rejected.strip():
        raise BadRow("chosen and rejected are equal")
    same = chosen[: _alike(chosen, rejected)]
    end = max(same.rfind("\n"), 0) or max(same.rfind(" "), 0)
    asked, sides = same[:end].strip(), [chosen[end:].strip(), rejected[end:].strip()]
    if not asked:
        raise BadRow("no prompt, and chosen and rejected do not begin alike")
    for column, side in zip(("chosen", "rejected"), sides, strict=True):
        if not side:
            raise BadRow(f"{column} ends where the two begin to differ")
    return [{"role": "user", "content": asked}], sides[0], sides[1]
