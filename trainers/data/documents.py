"""From plain text to token ids: whole documents, or the pieces of long ones."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from trainers.data.dataset import CHUNK
from trainers.data.kinds import Text
from trainers.data.packing import Row
from trainers.errors import InputProblem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

NO_WORD = -1
"""The word of a token that belongs to none, as [CLS]."""


def for_next_token(
    texts: Iterable[Text], tokenizer: PreTrainedTokenizerBase, length: int, *, eos: bool, counts: Counter[str]
) -> Iterator[Row]:
    """``input_ids`` of documents for a causal model, with the end token behind each when ``eos``.

    A document longer than ``length`` becomes several rows. Each begins with the last token of the one before,
    so that every token but a document's first is predicted exactly once. Counted are ``documents``, their
    ``tokens``, and how many were ``cut`` or (with nothing to predict) ``skipped``. Raises InputProblem where
    the tokenizer has no end token.
    """
    end = tokenizer.eos_token_id
    if eos and end is None:
        raise InputProblem("the tokenizer has no end token", hint="set method.append_eos to false")
    for ids in _encoded(texts, tokenizer):
        if eos and ids[-1:] != [end]:
            ids.append(end)
        counts["documents"] += 1
        if len(ids) < 2:
            counts["skipped"] += 1
            continue
        counts["tokens"] += len(ids)
        counts["cut"] += len(ids) > length
        whole = np.asarray(ids, dtype=np.int32)
        for start in range(0, len(whole) - 1, length - 1):
            yield {"input_ids": whole[start : start + length]}


def _encoded(texts: Iterable[Text], tokenizer: PreTrainedTokenizerBase) -> Iterator[list[int]]:
    texts = iter(texts)
    while chunk := [text.text for text in islice(texts, CHUNK)]:
        # Longer than the model takes is no cause for its warning: we cut.
        yield from tokenizer(chunk, verbose=False)["input_ids"]


def for_masked_token(
    texts: Iterable[Text], tokenizer: PreTrainedTokenizerBase, length: int, *, counts: Counter[str]
) -> Iterator[Row]:
    """``input_ids`` of documents for an encoder, each with the model's own marks at its ends, and ``words``.

    ``words`` numbers the words of a row; NO_WORD stands at marks, which are never guessed. A document longer
    than ``length`` becomes several rows. Counted as in ``for_next_token``.
    """
    texts = iter(texts)
    while chunk := [text.text for text in islice(texts, CHUNK)]:
        encoded = tokenizer(
            chunk, truncation=True, max_length=length, return_overflowing_tokens=True, return_token_type_ids=False
        )
        counts["documents"] += len(chunk)
        document = encoded["overflow_to_sample_mapping"]
        counts["cut"] += sum(rows > 1 for rows in Counter(document).values())
        for index, ids in enumerate(encoded["input_ids"]):
            words = [NO_WORD if word is None else word for word in encoded.word_ids(index)]
            marks = words.count(NO_WORD)
            # From 0 on without gaps, also in the later rows of a document.
            number = {word: place for place, word in enumerate(dict.fromkeys(word for word in words if word >= 0))}
            words = [number.get(word, NO_WORD) for word in words]
            counts["tokens"] += len(ids) - marks
            if marks == len(ids):
                counts["skipped"] += 1
                continue
            yield {"input_ids": np.asarray(ids, dtype=np.int32), "words": np.asarray(words, dtype=np.int32)}
