"""From preferences and rated answers to token ids: the prompt, and each answer with the mark that ends it.

The tokens of the prompt are those that the model is given when it answers, so every answer is learnt behind
the context that it will have. Every process does this on its own and gets the same result.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from datasets import Dataset, load_from_disk
from datasets.fingerprint import Hasher

from trainers.data import cache
from trainers.data.kinds import Conversation, Labelled, Preference
from trainers.data.rows import BadRow, BadRows, Skipped
from trainers.data.template import ChatTemplate
from trainers.errors import InputProblem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rows:
    """Rows ready to train on, and how many were cut at the limit or dropped."""

    rows: Dataset
    truncated: int
    dropped: int


def tokenise_pairs(
    pairs: Sequence[Preference],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    name: str,
    *,
    cut: bool = True,
) -> Rows:
    """Columns ``prompt_ids``, ``chosen_ids``, ``rejected_ids`` of preferences.

    Args:
        pairs: the preferences.
        tokenizer: with its chat template.
        max_length: tokens of a prompt with one answer.
        name: what the rows are, for messages.
        cut: whether an answer may lose its end. A pair whose sides are the same within the limit is dropped;
            without ``cut`` so is every pair that is longer than the limit.

    Raises:
        InputProblem: the template cannot be used, or no pair is left.
    """
    sides = ("prompt_ids", "chosen_ids", "rejected_ids")
    columns: dict[str, list[list[int]]] = {side: [] for side in sides}
    truncated = 0
    for prompt, answers in _tokenise([(p.prompt, [p.chosen, p.rejected], p.origin) for p in pairs], tokenizer, name):
        room = max_length - len(prompt)
        long = any(len(answer) > room for answer in answers)
        chosen, rejected = (answer[: max(room, 0)] for answer in answers)
        if chosen == rejected or (long and not cut):
            continue
        truncated += long
        for side, ids in zip(sides, (prompt, chosen, rejected), strict=True):
            columns[side].append(ids)
    why = "both answers are the same within" if cut else "an answer is longer than"
    return _counted(columns, len(pairs), truncated, max_length, name, why)


def tokenise_labelled(
    rated: Sequence[Labelled], tokenizer: PreTrainedTokenizerBase, max_length: int, name: str
) -> Rows:
    """Columns ``prompt_ids``, ``completion_ids``, ``label`` of rated answers.

    Answers are cut at ``max_length`` tokens of prompt and answer together; a row without room for one token of
    its answer is dropped. Raises InputProblem when the template cannot be used or no row is left.
    """
    columns: dict[str, list] = {"prompt_ids": [], "completion_ids": [], "label": []}
    truncated = 0
    tokens = _tokenise([(row.prompt, [row.completion], row.origin) for row in rated], tokenizer, name)
    for row, (prompt, (answer,)) in zip(rated, tokens, strict=True):
        room = max_length - len(prompt)
        if room < 1:
            continue
        truncated += len(answer) > room
        columns["prompt_ids"].append(prompt)
        columns["completion_ids"].append(answer[:room])
        columns["label"].append(row.label)
    return _counted(columns, len(rated), truncated, max_length, name, "no answer begins within")


def counts(train: Rows, held_out: Rows, skipped: Skipped) -> dict[str, int]:
    """How many rows of each kind, for the summary of the run."""
    found = {
        "training": len(train.rows),
        "held_out": len(held_out.rows),
        "truncated": train.truncated,
        "dropped": train.dropped,
    }
    return found | ({"left_out": skipped.bad} if skipped.bad else {})


def stored(rows: Rows, folder: Path) -> Rows:
    """The same rows in a file below ``folder``, named by what is in them.

    TRL keeps what the reference says of rows beside their file: processes share it, and a resumed run finds it,
    also where the run directory was moved.
    """
    if not len(rows.rows):
        return rows
    place = cache.find_or_build(folder / Hasher.hash(rows.rows[:]), rows.rows.save_to_disk)
    return replace(rows, rows=load_from_disk(place))


def _counted(columns: dict[str, list], count: int, truncated: int, max_length: int, name: str, why: str) -> Rows:
    dropped = count - len(columns["prompt_ids"])
    limit = f"data.max_length {max_length} tokens"
    if count and dropped == count:
        raise InputProblem(
            f"{name} rows: {why} {limit}, in all {count} of them",
            hint="raise data.max_length or shorten the prompts",
        )
    if truncated:
        log.warning("%s rows: %d of %d have an answer that was cut, %s", name, truncated, count, limit)
    if dropped:
        log.warning("%s rows: %d of %d were dropped: %s %s", name, dropped, count, why, limit)
    return Rows(Dataset.from_dict(columns), truncated, dropped)


def _tokenise(
    rows: Sequence[tuple[Conversation, list[Conversation], str]], tokenizer: PreTrainedTokenizerBase, name: str
) -> Iterator[tuple[list[int], list[list[int]]]]:
    """The ids of each prompt and of each of its answers."""
    template, bad = ChatTemplate(tokenizer), BadRows(f"{name} rows")
    texts: list[list[str]] = []
    for prompt, answers, origin in rows:
        try:
            texts.append(_texts(template, prompt, answers))
        except BadRow as e:
            bad.add(origin, str(e))
    bad.raise_if_any(len(rows))
    # The template has written every special token already.
    encode = tokenizer([text for row in texts for text in row], add_special_tokens=False)["input_ids"] if texts else []
    ids = iter(encode)
    for row in texts:
        prompt_ids = next(ids)
        answers_ids = []
        for text in row[1:]:
            whole = next(ids)
            if whole[: len(prompt_ids)] == prompt_ids:
                answers_ids.append(whole[len(prompt_ids) :])
            else:
                # A token reaches over the end of the prompt, which cannot happen when the model answers.
                answers_ids.append(tokenizer(text[len(row[0]) :], add_special_tokens=False)["input_ids"])
        yield prompt_ids, answers_ids


def _texts(template: ChatTemplate, prompt: Conversation, answers: list[Conversation]) -> list[str]:
    """The prompt up to where the assistant begins, and it with each answer up to the mark that ends it."""
    if any(template.end in message["content"] for part in (prompt, *answers) for message in part):
        raise BadRow(f"contains the end-of-turn mark {template.end!r}")
    asked = template.text(prompt, ask=True)
    texts = [asked]
    for answer in answers:
        whole = template.text([*prompt, *answer])
        if not whole.startswith(asked):
            raise InputProblem(
                "the chat template writes a prompt differently once it is answered, so the answer cannot be told "
                "from the prompt",
                hint="name a template in model.chat_template that only ever appends",
            )
        texts.append(whole[: whole.rindex(template.end) + len(template.end)])
    return texts
