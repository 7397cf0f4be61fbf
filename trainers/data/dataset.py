"""From conversations to token ids and labels."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from trainers.data.kinds import Example
from trainers.data.packing import Row
from trainers.data.rows import BadRow, BadRows
from trainers.data.template import ChatTemplate, Span
from trainers.errors import InputProblem

if TYPE_CHECKING:
    from transformers import BatchEncoding, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

IGNORED = -100
"""The label of a token without loss, as torch.nn.functional.cross_entropy knows it."""

CHUNK = 1000
"""Rows that are tokenised together: the tokenizer shares them out over the processor's cores."""


def tokenise(
    rows: Iterable[Example], tokenizer: PreTrainedTokenizerBase, max_length: int, name: str, counts: Counter[str]
) -> Iterator[Row]:
    """``input_ids`` and ``labels`` of conversations, with loss on the assistant's turns alone.

    Rows are cut at ``max_length`` tokens; a row that has no trained token left is dropped. Both are counted
    (``truncated``, ``dropped``) and said. Raises InputProblem when the template cannot be used, and at the end
    for rows that cannot, or when no row is left. ``name`` is what messages call the rows.
    """
    template, bad, seen, made = ChatTemplate(tokenizer), BadRows(f"{name} rows"), 0, 0
    rows = iter(rows)
    while chunk := list(islice(rows, CHUNK)):
        seen += len(chunk)
        for row in _chunk(chunk, template, tokenizer, bad):
            cut = {column: values[:max_length] for column, values in row.items()}
            counts["truncated"] += len(row["labels"]) > max_length
            # The first token is never predicted.
            if (cut["labels"][1:] == IGNORED).all():
                counts["dropped"] += 1
                continue
            made += 1
            yield cut
    bad.raise_if_any(seen)
    if counts["truncated"]:
        log.warning("%s rows: %d of %d were cut at %d tokens", name, counts["truncated"], seen, max_length)
    if counts["dropped"]:
        log.warning("%s rows: %d were dropped, their whole answer lies behind the cut", name, counts["dropped"])
    if seen and not made:
        raise InputProblem(
            f"{name} rows: no answer begins within data.max_length {max_length} tokens",
            hint="raise data.max_length or shorten the prompts",
        )


def _chunk(
    rows: list[Example], template: ChatTemplate, tokenizer: PreTrainedTokenizerBase, bad: BadRows
) -> Iterator[Row]:
    texts, spans = [], []
    for row in rows:
        try:
            text, trained = template.spans(row.messages)
        except BadRow as e:
            bad.add(row.origin, str(e))
            continue
        texts.append(text)
        spans.append(trained)
    if not texts:
        return
    # The template has written every special token already.
    encoded = tokenizer(texts, add_special_tokens=False)
    for index, ids in enumerate(encoded["input_ids"]):
        row_ids = np.asarray(ids, dtype=np.int32)
        yield {"input_ids": row_ids, "labels": _label(encoded, index, row_ids, spans[index])}


def _label(encoded: BatchEncoding, row: int, ids: np.ndarray, trained: list[Span]) -> np.ndarray:
    """The ids of the tokens that begin within a trained span, IGNORED for all others."""
    labels = np.full_like(ids, IGNORED)
    for start, stop in trained:
        # A span ends with a special token, so the way to the next token stays within it.
        while (first := encoded.char_to_token(row, start)) is None:
            start += 1
        if encoded.token_to_chars(row, first).start < start:
            first += 1
        last = encoded.char_to_token(row, stop - 1)
        labels[first : last + 1] = ids[first : last + 1]
    return labels
