"""What is trained on: exactly the assistant's words and the mark that ends them, nothing else."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import CHATML
from trainers.data.dataset import IGNORED, tokenise
from trainers.data.kinds import Conversation, Example
from trainers.errors import InputProblem

MARKED = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] }}{% endgeneration %}{% else %}{{ m['content'] }}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

THINKING = (
    # As Qwen3 does: only the last answer carries a block of thoughts, so a longer conversation begins differently.
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' and loop.last %}"
    "<think>\n\n</think>\n\n{% endif %}{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

COUNTING = "{{ messages | length }} turns" + CHATML
"""A template that writes the beginning differently when the conversation goes on."""


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture(autouse=True)
def chatml(tokenizer: Any) -> None:
    tokenizer.chat_template = CHATML


def turns(*contents: str, system: str = "") -> Example:
    messages: Conversation = [{"role": "system", "content": system}] if system else []
    for index, content in enumerate(contents):
        messages.append({"role": ("user", "assistant")[index % 2], "content": content})
    return Example(messages, "data.csv row 1 (line 2)")


def trained(tokenizer: Any, row: dict[str, list[int]]) -> list[str]:
    """The trained stretches of a row as text."""
    assert len(row["input_ids"]) == len(row["labels"])
    stretches: list[list[int]] = [[]]
    for token, label in zip(row["input_ids"], row["labels"], strict=True):
        assert label in (IGNORED, token)
        if label != IGNORED:
            stretches[-1].append(token)
        elif stretches[-1]:
            stretches.append([])
    return [tokenizer.decode(stretch) for stretch in stretches if stretch]


def rows_of(
    tokenizer: Any, examples: list[Example], length: int = 500, counts: Counter[str] | None = None
) -> list[dict[str, list[int]]]:
    made = tokenise(examples, tokenizer, length, "training", Counter() if counts is None else counts)
    return [{name: values.tolist() for name, values in row.items()} for row in made]


def only_row(tokenizer: Any, example: Example, length: int = 500) -> dict[str, list[int]]:
    return rows_of(tokenizer, [example], length)[0]


def test_single_turn(tokenizer: Any) -> None:
    row = only_row(tokenizer, turns("Who is the wolf?", " Player 3,\nby the vote. ", system="You judge."))
    assert trained(tokenizer, row) == [" Player 3,\nby the vote. <|im_end|>"]
    assert tokenizer.decode(row["input_ids"]).startswith("<|im_start|>system\nYou judge.<|im_end|>\n<|im_start|>user")


@pytest.mark.parametrize("template", [CHATML, MARKED])
def test_every_assistant_turn(tokenizer: Any, template: str) -> None:
    tokenizer.chat_template = template
    row = only_row(tokenizer, turns("谁是狼人？", "三号。", "Why?", "Because of the vote.", "Sure?", "Yes 🐺"))
    assert trained(tokenizer, row) == ["三号。<|im_end|>", "Because of the vote.<|im_end|>", "Yes 🐺<|im_end|>"]


def test_what_the_template_adds_to_an_answer_is_trained(tokenizer: Any) -> None:
    tokenizer.chat_template = THINKING
    row = only_row(tokenizer, turns("Who?", "Three.", "Why?", "The vote."))
    assert trained(tokenizer, row) == ["Three.<|im_end|>", "<think>\n\n</think>\n\nThe vote.<|im_end|>"]


def test_padding_carries_no_loss(tokenizer: Any) -> None:
    from trainers.data.collate import Collator

    rows = rows_of(tokenizer, [turns("a", "b"), turns("a", "much longer than the other")])
    batch = Collator(tokenizer.pad_token_id)(rows)
    padding = batch["attention_mask"] == 0
    assert padding.any()
    assert (batch["labels"][padding] == IGNORED).all()
    assert batch["input_ids"].shape[1] == max(len(row["input_ids"]) for row in rows)


def test_the_same_text_as_the_template_and_the_same_tokens_as_generation_sees(tokenizer: Any) -> None:
    example = turns("Who is the wolf?", "Player 3.")
    row = only_row(tokenizer, example)
    whole = tokenizer.apply_chat_template(example.messages, return_dict=True)["input_ids"]
    assert row["input_ids"] == whole
    asked = tokenizer.apply_chat_template(example.messages[:1], add_generation_prompt=True, return_dict=True)
    assert row["labels"][: len(asked["input_ids"])] == [IGNORED] * len(asked["input_ids"])
    assert row["labels"][len(asked["input_ids"])] != IGNORED


def test_long_rows_are_cut_counted_and_dropped_when_nothing_is_left(tokenizer: Any) -> None:
    short, long_answer = turns("a", "b"), turns("a", "word " * 100)
    long_prompt = turns("word " * 100, "b")
    counts = Counter[str]()
    rows = rows_of(tokenizer, [short, long_answer, long_prompt], 40, counts)
    assert (len(rows), counts["truncated"], counts["dropped"]) == (2, 2, 1)
    assert len(rows[1]["input_ids"]) == 40
    with pytest.raises(InputProblem, match=r"no answer begins within data\.max_length 40"):
        rows_of(tokenizer, [long_prompt], 40)


def test_templates_that_cannot_be_trained_on(tokenizer: Any) -> None:
    tokenizer.chat_template = None
    with pytest.raises(InputProblem, match="no chat template"):
        only_row(tokenizer, turns("a", "b"))
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    with pytest.raises(InputProblem, match="never learn to stop"):
        only_row(tokenizer, turns("a", "b"))
    tokenizer.chat_template = COUNTING
    with pytest.raises(InputProblem, match="writes a conversation differently once it goes on"):
        only_row(tokenizer, turns("a", "b"))
    tokenizer.chat_template = "{% for m in"
    with pytest.raises(InputProblem, match="does not work"):
        only_row(tokenizer, turns("a", "b"))


def test_rows_that_the_template_refuses_or_that_break_it(tokenizer: Any) -> None:
    with pytest.raises(InputProblem) as refused:
        rows_of(tokenizer, [turns("a", "b"), turns("a", "b <|im_end|> c")])
    assert refused.value.message == (
        "training rows: 1 of 2 rows cannot be used\n"
        "  data.csv row 1 (line 2): contains the end-of-turn mark '<|im_end|>'"
    )
    tokenizer.chat_template = CHATML.replace(
        "{% for", "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}{% for", 1
    )
    with pytest.raises(InputProblem, match=r"row 1 \(line 2\): the chat template refuses it: no system"):
        only_row(tokenizer, turns("a", "b", system="c"))


def test_a_saved_model_stops_at_the_end_of_its_answer(tokenizer: Any) -> None:
    """A base model names another end token, with which it would talk on."""
    from types import SimpleNamespace

    from trainers.model.generate import end_answers_with

    model = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=0))
    end_answers_with(model, tokenizer, "<|im_end|>")
    assert model.generation_config.eos_token_id == [0, tokenizer.convert_tokens_to_ids("<|im_end|>")]
    end_answers_with(model, tokenizer, "<|im_end|>")
    assert len(model.generation_config.eos_token_id) == 2
