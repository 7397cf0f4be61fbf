"""From conversations to token ids and labels.

Every process does this on its own and gets the same result. It needs no communication, so a long
tokenisation cannot run into the time-out of a process group.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from datasets import Dataset

from trainers.data.formats import Example
from trainers.data.rows import BadRow, BadRows
from trainers.data.template import ChatTemplate, Span
from trainers.errors import InputProblem

if TYPE_CHECKING:
    from transformers import BatchEncoding, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

IGNORED = -100
"""The label of a token without loss, as torch.nn.functional.cross_entropy knows it."""


@dataclass(frozen=True)
class Tokenised:
    """Rows ready to train on: ``input_ids`` and ``labels``. ``truncated`` and ``dropped`` count rows."""

    rows: Dataset
    truncated: int
    dropped: int


def tokenise(rows: list[Example], tokenizer: PreTrainedTokenizerBase, max_length: int, name: str) -> Tokenised:
    """Token ids and labels of conversations, with loss on the assistant's turns alone.

    Rows are cut at ``max_length`` tokens; a row that has no trained token left is dropped. Both are counted
    and said. Raises InputProblem when the template cannot be used or no row is left.
    """
    template, bad = ChatTemplate(tokenizer), BadRows(f"{name} rows")
    texts, spans = [], []
    for row in rows:
        try:
            text, trained = template.spans(row.messages)
        except BadRow as e:
            bad.add(row.origin, str(e))
            continue
        texts.append(text)
        spans.append(trained)
    bad.raise_if_any(len(rows))
    # The template has written every special token already.
    encoded = tokenizer(texts, add_special_tokens=False)
    ids, labels, truncated, dropped = [], [], 0, 0
    for index, row_ids in enumerate(encoded["input_ids"]):
        row_labels = _label(encoded, index, spans[index])
        truncated += len(row_ids) > max_length
        # The first token is never predicted.
        if all(label == IGNORED for label in row_labels[1:max_length]):
            dropped += 1
            continue
        ids.append(row_ids[:max_length])
        labels.append(row_labels[:max_length])
    if truncated:
        log.warning("%s rows: %d of %d were cut at %d tokens", name, truncated, len(rows), max_length)
    if dropped:
        log.warning("%s rows: %d were dropped, their whole answer lies behind the cut", name, dropped)
    if rows and not ids:
        raise InputProblem(
            f"{name} rows: no answer begins within data.max_length {max_length} tokens",
            hint="raise data.max_length or shorten the prompts",
        )
    return Tokenised(Dataset.from_dict({"input_ids": ids, "labels": labels}), truncated, dropped)


def _label(encoded: BatchEncoding, row: int, trained: list[Span]) -> list[int]:
    """The ids of the tokens that begin within a trained span, IGNORED for all others."""
    ids = encoded["input_ids"][row]
    labels = [IGNORED] * len(ids)
    for start, stop in trained:
        # A span ends with a special token, so the way to the next token stays within it.
        while (first := encoded.char_to_token(row, start)) is None:
            start += 1
        if encoded.token_to_chars(row, first).start < start:
            first += 1
        last = encoded.char_to_token(row, stop - 1)
        labels[first : last + 1] = ids[first : last + 1]
    return labels
