"""Rows of every stage but sft: pairs, rated answers, prompts, documents; plain, as messages, as transcripts."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.tiny import write_csv, write_jsonl
from tests.unit.test_data import load
from trainers.config import parse
from trainers.data.examples import Preference
from trainers.data.messages import is_transcript, transcript
from trainers.errors import InputProblem


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def bot(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def system(text: str) -> dict[str, str]:
    return {"role": "system", "content": text}


def one(folder: Path, stage: str, row: dict[str, Any], **data: Any) -> Any:
    (found,) = load(write_jsonl(folder / "a.jsonl", [row]), stage=stage, **data).train
    return found


def parts(pair: Preference) -> tuple[Any, Any, Any]:
    return pair.prompt, pair.chosen, pair.rejected


ASKED = ([user("Who?")], [bot("Three.")], [bot("Four.")])

HH = "\n\nHuman: Hi.\n\nAssistant: Hello.\n\nHuman: Who?\n\nAssistant: "


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Who?", "chosen": "Three.", "rejected": "Four."},
        {"prompt": [user("Who?")], "chosen": [bot("Three.")], "rejected": [bot("Four.")]},
        {"prompt": [user("Who?")], "chosen": "Three.", "rejected": [bot("Four.")]},
        {"prompt": "\n\nHuman: Who?\n\nAssistant:", "chosen": " Three.", "rejected": " Four."},
        {"instruction": "Who?", "input": "", "chosen": "Three.", "rejected": "Four."},
        {"chosen": [user("Who?"), bot("Three.")], "rejected": [user("Who?"), bot("Four.")]},
        {
            "chosen": [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "Three."}],
            "rejected": [user("Who?"), bot("Four."), user("Thanks.")],
        },
        # As ultrafeedback has it: the prompt stands there twice.
        {"prompt": "Who?", "chosen": [user("Who?"), bot("Three.")], "rejected": [user("Who?"), bot("Four.")]},
        {"chosen": "\n\nHuman: Who?\n\nAssistant: Three.", "rejected": "\n\nHuman: Who?\n\nAssistant: Four."},
        {"chosen": "Who?\nThree.", "rejected": "Who?\nFour."},
        {"chosen": "Who? Three.", "rejected": "Who? Four."},
    ],
)
def test_pairs_however_they_are_written(folder: Path, row: dict[str, Any]) -> None:
    found = parts(one(folder, "dpo", row))
    stripped = [[{**turn, "content": turn["content"].strip()} for turn in part] for part in found]
    assert tuple(stripped) == ASKED
    assert parts(one(folder, "reward", row)) == found


def test_a_transcript_of_several_turns(folder: Path) -> None:
    row = {"chosen": HH + "Three.\n\nOr so.", "rejected": HH + "Four."}
    pair = one(folder, "dpo", row, system="You judge.")
    assert pair.prompt == [system("You judge."), user("Hi."), bot("Hello."), user("Who?")]
    assert (pair.chosen, pair.rejected) == ([bot("Three.\n\nOr so.")], [bot("Four.")])
    assert pair.origin == f"{folder / 'a.jsonl'} row 1 (line 1)"


def test_sides_that_part_early_keep_all_their_turns(folder: Path) -> None:
    chosen = [user("Who?"), bot("Three."), user("Sure?"), bot("Yes.")]
    pair = one(folder, "dpo", {"chosen": chosen, "rejected": [user("Who?"), bot("Four.")]})
    assert parts(pair) == ([user("Who?")], chosen[1:], [bot("Four.")])
    shorter = one(folder, "dpo", {"chosen": chosen, "rejected": chosen[:2]})
    assert parts(shorter) == ([user("Who?")], chosen[1:], [bot("Three.")])


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "Who?", "chosen": "Three.", "rejected": "Three. "}, "chosen and rejected are equal"),
        ({"chosen": [user("Who?"), bot("A")], "rejected": [user("Who?"), bot("A")]}, "chosen and rejected are equal"),
        ({"chosen": HH + "Three.", "rejected": HH + "Three."}, "chosen and rejected are equal"),
        ({"chosen": "Three.", "rejected": "Three."}, "chosen and rejected are equal"),
        ({"prompt": "Who?", "chosen": "", "rejected": "Four."}, "chosen is empty"),
        ({"prompt": "Who?", "chosen": "Three.", "rejected": []}, "rejected is empty"),
        ({"prompt": "Who?", "chosen": "Three.", "rejected": None}, "no rejected"),
        ({"chosen": HH + "Three.", "rejected": HH}, "rejected has no answer"),
        ({"chosen": [user("Who?"), bot("A")], "rejected": [user("What?"), bot("B")]}, "the prompts of chosen and"),
        ({"chosen": [user("W?"), bot("A")], "rejected": [user("W?"), user("X?"), bot("B")]}, "the prompts of chosen"),
        (
            {"prompt": "Why?", "chosen": [user("Who?"), bot("A")], "rejected": [user("Who?"), bot("B")]},
            "prompt is not what chosen and rejected begin with",
        ),
        ({"chosen": "Three.", "rejected": "Four."}, "no prompt, and chosen and rejected do not begin alike"),
        ({"chosen": "Who? Three.", "rejected": "Who? "}, "rejected ends where the two begin to differ"),
        ({"chosen": [bot("A")], "rejected": [bot("B")]}, "no prompt: chosen and rejected do not both begin with one"),
        ({"prompt": "Who?", "chosen": [user("Who?"), bot("A")], "rejected": "B"}, "chosen begins with the user"),
        ({"prompt": [user("Who?"), bot("A")], "chosen": "B", "rejected": "C"}, "prompt ends with the assistant"),
        ({"chosen": HH.replace("Hello.", "") + "A", "rejected": HH + "B"}, "message 2 (assistant) is empty"),
    ],
)
def test_bad_pairs(folder: Path, row: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputProblem) as bad:
        one(folder, "dpo", row)
    assert f"row 1 (line 1): {reason}" in bad.value.message


WORDS = st.text(st.characters(codec="utf-8"), min_size=1).map(str.strip).filter(bool)
SAID = WORDS.filter(lambda text: "\n\nHuman:" not in f"\n\n{text}" and "\n\nAssistant:" not in f"\n\n{text}")


@example([("He said:\nHuman: no.\nAssistant: so?", "Human: yes.")], True)
@given(st.lists(st.tuples(SAID, SAID), min_size=1, max_size=4), st.booleans())
def test_a_transcript_gives_back_what_was_said(turns: list[tuple[str, str]], asks: bool) -> None:
    messages = [message for asked, told in turns for message in (user(asked), bot(told))]
    names = {"user": "Human", "assistant": "Assistant"}
    text = "".join(f"\n\n{names[message['role']]}: {message['content']}" for message in messages)
    if asks:
        text += "\n\nHuman: More?\n\nAssistant:"
        messages.append(user("More?"))
    assert is_transcript(text)
    assert transcript(text, "chosen") == messages


@pytest.mark.parametrize(
    ("label", "good"), [(True, True), (False, False), (1, True), (0, False), ("true", True), ("False", False)]
)
def test_rated_answers(folder: Path, label: Any, good: bool) -> None:
    row = one(folder, "kto", {"prompt": "Who?", "completion": "Three.", "label": label}, system="You judge.")
    assert (row.prompt, row.completion, row.label) == ([system("You judge."), user("Who?")], [bot("Three.")], good)
    chat = one(folder, "kto", {"prompt": [user("Who?")], "completion": [bot("Three.")], "label": label})
    assert (chat.prompt, chat.completion, chat.label) == ([user("Who?")], [bot("Three.")], good)


@pytest.mark.parametrize("label", ["maybe", 2, None, [True], 0.5])
def test_labels_that_say_nothing(folder: Path, label: Any) -> None:
    with pytest.raises(InputProblem, match=r"label is .*; true or false is wanted"):
        one(folder, "kto", {"prompt": "Who?", "completion": "Three.", "label": label})


def test_rated_answers_in_a_table_with_other_names(folder: Path) -> None:
    path = write_csv(folder / "a.csv", [("Who?", "Three.", "1"), ("Who?", "Four.", "0")], ("q", "a", "good"))
    columns = {"prompt": "q", "completion": "a", "label": "good"}
    assert [row.label for row in load(path, stage="kto", columns=columns).train] == [True, False]


@pytest.mark.parametrize("stage", ["grpo", "rloo", "ppo"])
def test_prompts_keep_what_rewards_need(folder: Path, stage: str) -> None:
    prompt = one(folder, stage, {"prompt": "Who?", "answer": "Three.", "system": "You judge.", "level": 2})
    assert prompt.prompt == [system("You judge."), user("Who?")]
    assert prompt.columns == {"answer": "Three.", "level": 2}
    mapped = one(folder, stage, {"q": [user("Who?")], "gold": "3"}, columns={"prompt": "q", "answer": "gold"})
    assert (mapped.prompt, mapped.columns) == ([user("Who?")], {"answer": "3"})
    told = one(folder, stage, {"instruction": "Count.", "input": "Who?", "output": "3"})
    assert (told.prompt, told.columns) == ([user("Count.\n\nWho?")], {"output": "3"})
    chat = one(folder, stage, {"messages": [user("Hi."), bot("Hello."), user("Who?")]})
    assert (chat.prompt, chat.columns) == ([user("Hi."), bot("Hello."), user("Who?")], {})
    with pytest.raises(InputProblem, match="messages ends with the assistant, not with the user"):
        one(folder, stage, {"messages": [user("Who?"), bot("Three.")]})


def test_messages_in_a_table_are_json(folder: Path) -> None:
    row = (json.dumps([user("Who?")]), json.dumps([bot("Three.")]), "Four.")
    (pair,) = load(write_csv(folder / "a.csv", [row], ("prompt", "chosen", "rejected")), stage="dpo").train
    assert parts(pair) == ASKED


@pytest.mark.parametrize(
    ("stage", "looked_for"),
    [
        ("dpo", "messages+chosen+rejected or .* or prompt+chosen+rejected or chosen+rejected$"),
        ("kto", "prompt+completion+label$"),
        ("grpo", "instruction or prompt$"),
        ("cpt", "text or content or messages or conversations$"),
    ],
)
def test_rows_of_another_stage(folder: Path, stage: str, looked_for: str) -> None:
    path = write_jsonl(folder / "a.jsonl", [{"question": "Who?", "response": "Three."}])
    pattern = looked_for.replace("+", r"\+")
    with pytest.raises(InputProblem, match=f"has the columns question, response; looked for .*{pattern}") as bad:
        list(load(path, stage=stage).train)
    assert ("data.text_fields" if stage == "cpt" else "data.columns") in bad.value.hint


def test_a_format_is_for_sft_alone() -> None:
    with pytest.raises(ValueError, match=r"data\.format is for stage sft"):
        data = {"train_files": "a", "format": "messages"}
        parse({"stage": "dpo", "model": {"model_name_or_path": "m"}, "data": data})


# Documents


def texts(rows: Any) -> list[str]:
    return [row.text for row in rows]


@pytest.mark.parametrize("stage", ["cpt", "mlm"])
def test_the_first_text_field_that_a_row_has(folder: Path, stage: str) -> None:
    rows = [
        {"text": "one", "content": "no"},
        {"content": "two"},
        {"text": None, "content": "three"},
        {"body": "four", "text": "no"},
        {"messages": [user("Who?"), bot("Three.")]},
        {"conversations": [{"from": "human", "value": "Who?"}]},
        {"text": " \n", "content": "no"},
        {"text": "five", "messages": [user("no")]},
    ]
    examples = load(write_jsonl(folder / "a.jsonl", rows), stage=stage, text_fields=["body", "text", "content"])
    wanted = ["one", "two", "three", "four", "user: Who?\nassistant: Three.", "user: Who?", "five"]
    for _ in range(2):  # every walk is a whole one
        assert texts(examples.train) == wanted
        assert (examples.train.empty, examples.skipped.empty) == (1, 1)
    assert texts(pickle.loads(pickle.dumps(examples.train))) == wanted
    assert examples.held_out == []


def test_empty_documents_are_counted_once(folder: Path) -> None:
    rows = [{"text": "" if number % 5 else "some"} for number in range(50)]
    examples = load(write_jsonl(folder / "a.jsonl", rows), stage="cpt", validation_split=0.5)
    assert len(texts(examples.train)) == 5
    assert len(texts(examples.held_out)) == 5
    assert (examples.skipped.empty, examples.held_out.empty) == (40, 40)


def test_bad_documents(folder: Path) -> None:
    rows = [{"text": "one"}, {"title": "x"}, {"text": 3}, {"text": "four"}]
    path = write_jsonl(folder / "a.jsonl", rows)
    examples = load(path, stage="cpt")
    with pytest.raises(InputProblem) as bad:
        texts(examples.train)
    assert "2 of 4 rows cannot be used" in bad.value.message
    assert "row 2 (line 2): none of text, content, messages, conversations" in bad.value.message
    # Bad rows are no secret of a walk that ends early.
    with pytest.raises(InputProblem, match="row 2"):
        texts(load(path, stage="cpt", max_train_samples=2).train)
    left = load(path, stage="cpt", skip_bad_rows=True)
    assert texts(left.train) == ["one", "four"]
    assert left.skipped.bad == 2
    with pytest.raises(InputProblem, match="no text to use, 1 rows are empty"):
        texts(load(write_jsonl(folder / "b.jsonl", [{"text": ""}]), stage="cpt").train)


def test_a_stream_says_at_once_what_is_bad(folder: Path) -> None:
    rows = [{"text": "one"}, {"text": 2}, *[{"text": "more"}] * 100]
    examples = load(write_jsonl(folder / "a.jsonl", rows), stage="cpt", streaming=True)
    walk = iter(examples.train)
    assert next(walk).text == "one"
    with pytest.raises(InputProblem, match="row 2"):
        next(walk)


def test_a_text_file_is_a_document_and_a_large_one_is_cut_between_paragraphs(folder: Path) -> None:
    small = folder / "small.txt"
    small.write_bytes(b"Title\r\n\r\nA line\r\nand another.")
    (document,) = load(small, stage="cpt").train
    assert (document.text, document.origin) == ("Title\n\nA line\nand another.", f"{small} row 1 (line 1)")
    paragraph = "".join(f"Line {number} of a paragraph.\n" for number in range(100)) + "\n"
    large = folder / "large.txt"
    large.write_text(paragraph * 100, encoding="utf-8")
    pieces = texts(load(large, stage="cpt").train)
    assert "".join(pieces) == paragraph * 100
    assert len(pieces) == 4 and all(piece.endswith(".\n\n") for piece in pieces[:-1])
    endless = folder / "endless.txt"
    endless.write_text("word\n" * 40_000, encoding="utf-8")
    assert [len(piece) for piece in texts(load(endless, stage="cpt").train)] == [69_635, 69_635, 60_730]


def test_large_files_are_not_read_whole(folder: Path) -> None:
    path = write_jsonl(folder / "a.jsonl", [{"text": f"{number} " + "x" * 10_000} for number in range(2000)])
    import tracemalloc

    examples = load(path, stage="cpt", validation_split=0.5)
    tracemalloc.start()
    count = sum(1 for _ in load(path, stage="cpt").train)
    whole = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 2000
    assert whole < 2_000_000  # the file has 20 MB
    assert len(texts(examples.train)) == len(texts(examples.held_out)) == 1000
