"""Preferences as tokens: the prompt as the model is asked it, every answer with the mark that ends it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.tiny import CHATML
from trainers.data.answered import tokenise_labelled, tokenise_pairs
from trainers.data.kinds import Labelled, Preference
from trainers.errors import InputProblem

ORIGIN = "data.jsonl row 1 (line 1)"


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture(autouse=True)
def chatml(tokenizer: Any) -> None:
    tokenizer.chat_template = CHATML


def pair(chosen: str, rejected: str, asked: str = "Who is the wolf?") -> Preference:
    def said(content: str) -> list[dict[str, str]]:
        return [{"role": "assistant", "content": content}]

    return Preference([{"role": "user", "content": asked}], said(chosen), said(rejected), ORIGIN)


def test_prompt_and_answers(tokenizer: Any) -> None:
    (row,) = tokenise_pairs([pair("Player 3.", "Nobody is.")], tokenizer, 128, "training").rows
    asked = [{"role": "user", "content": "Who is the wolf?"}]
    assert row["prompt_ids"] == tokenizer.apply_chat_template(asked, add_generation_prompt=True)["input_ids"]
    assert tokenizer.decode(row["chosen_ids"]) == "Player 3.<|im_end|>"
    assert tokenizer.decode(row["rejected_ids"]) == "Nobody is.<|im_end|>"


def test_a_token_never_reaches_from_the_prompt_into_the_answer(tokenizer: Any) -> None:
    # The tokenizer has learnt "player" as one token; alone, "pl" is not its beginning.
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['content'] }}{% if m['role'] == 'assistant' %}<|im_end|>{% else %} pl{% endif %}"
        "{% endfor %}"
    )
    (row,) = tokenise_pairs([pair("ayer 3", "ant")], tokenizer, 128, "training").rows
    prompt = tokenizer("Who is the wolf? pl", add_special_tokens=False)["input_ids"]
    whole = tokenizer("Who is the wolf? player 3<|im_end|>", add_special_tokens=False)["input_ids"]
    assert whole[: len(prompt)] != prompt
    assert row["prompt_ids"] == prompt
    assert tokenizer.decode(row["chosen_ids"]) == "ayer 3<|im_end|>"


def test_what_the_limit_takes_away(tokenizer: Any) -> None:
    same, differs = "Player 1 is a wolf. ", "The witch. "
    pairs = [
        pair(same * 3 + "Yes.", same * 3 + "No."),  # differ behind the limit
        pair(same * 3, differs * 3),
        pair("Yes.", "No."),
        pair("Yes.", "No.", asked=same * 5),  # no room for an answer
    ]
    length = len(tokenise_pairs([pairs[2]], tokenizer, 128, "training").rows[0]["prompt_ids"]) + 8
    cut = tokenise_pairs(pairs, tokenizer, length, "training")
    assert (len(cut.rows), cut.truncated, cut.dropped) == (2, 1, 2)
    assert all(
        len(row["prompt_ids"] + row[side]) <= length for row in cut.rows for side in ("chosen_ids", "rejected_ids")
    )
    whole = tokenise_pairs(pairs, tokenizer, length, "training", cut=False)
    assert (len(whole.rows), whole.truncated, whole.dropped) == (1, 0, 3)
    rated = [Labelled(row.prompt, row.chosen, label=True, origin=ORIGIN) for row in pairs]
    labelled = tokenise_labelled(rated, tokenizer, length, "training")
    assert (len(labelled.rows), labelled.truncated, labelled.dropped) == (3, 2, 1)
    assert labelled.rows["label"] == [True, True, True]
    with pytest.raises(InputProblem, match=r"no answer begins within data\.max_length 8 tokens, in all 4 of them"):
        tokenise_labelled(rated, tokenizer, 8, "training")
    with pytest.raises(InputProblem, match=r"both answers are the same within data\.max_length 8 tokens, in all 4 of"):
        tokenise_pairs(pairs, tokenizer, 8, "training")
    with pytest.raises(InputProblem, match=r"an answer is longer than data\.max_length 8 tokens, in all 4 of them"):
        tokenise_pairs(pairs, tokenizer, 8, "training", cut=False)


def test_rows_and_templates_that_cannot_be_used(tokenizer: Any) -> None:
    with pytest.raises(InputProblem, match="contains the end-of-turn mark"):
        tokenise_pairs([pair("Yes.<|im_end|>", "No.")], tokenizer, 128, "training")
    tokenizer.chat_template = (
        "{{ messages | length }} turns"
        "{% for m in messages %}{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}<|im_end|>"
        "{% endgeneration %}{% else %}{{ m['content'] }}{% endif %}{% endfor %}"
    )
    with pytest.raises(InputProblem, match="writes a prompt differently once it is answered"):
        tokenise_pairs([pair("Yes.", "No.")], tokenizer, 128, "training")
