"""Reading data files: every format, and every bad row with its place and reason."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import make_rows, write_csv, write_jsonl
from trainers.config import parse
from trainers.data.examples import Examples, load_examples
from trainers.errors import InputProblem


def load(*paths: Path | str, stage: str = "sft", seed: int = 1, **data: Any) -> Examples:
    method = {"reward_functions": "exact_match"} if stage in ("grpo", "rloo", "ppo") else {}
    model = {"model_name_or_path": "m"}
    data = {"train_files": [str(path) for path in paths], **data}
    return load_examples(
        parse({"stage": stage, "model": model, "data": data, "method": method, "optim": {"seed": seed, "max_steps": 9}})
    )


def said(path: Path, wanted: str = "auto", columns: dict[str, str] | None = None, system: str | None = None) -> Any:
    return [
        [(message["role"], message["content"]) for message in example.messages]
        for example in load(path, format=wanted, columns=columns or {}, system=system).train
    ]


ASKED = [[("user", "Who?"), ("assistant", "Three.")]]


def test_pairs_in_csv_and_jsonl(folder: Path) -> None:
    assert said(write_csv(folder / "a.csv", [("Who?", "Three.")])) == ASKED
    assert said(write_csv(folder / "b.csv", [("Who?", "Three.")], ("input", "output"))) == ASKED
    assert said(write_jsonl(folder / "c.jsonl", [{"prompt": "Who?", "response": "Three.", "meta": 3}])) == ASKED
    assert said(write_jsonl(folder / "d.json", [{"input": "Who?", "output": "Three."}]), "input_output") == ASKED


def test_instruction_stands_above_the_prompt(folder: Path) -> None:
    header = ("instruction", "prompt", "response", "meta")
    path = write_csv(folder / "a.csv", [("You judge.", "Who?", "Three.", "x"), ("Who?", "", "Three.", "x")], header)
    assert said(path) == [[("user", "You judge.\n\nWho?"), ("assistant", "Three.")], *ASKED]
    # Alpaca's names: its instruction must not be lost because input and output are a format of their own.
    row = {"instruction": "You judge.", "input": "Who?", "output": "Three."}
    assert said(write_jsonl(folder / "b.jsonl", [row])) == [[("user", "You judge.\n\nWho?"), ("assistant", "Three.")]]


def test_conversations(folder: Path) -> None:
    turns = [
        {"role": "system", "content": "You judge."},
        {"role": "user", "content": "Who?"},
        {"role": "assistant", "content": "Three."},
        {"role": "user", "content": "Thanks."},
    ]
    wanted = [[("system", "You judge."), *ASKED[0]]]
    assert said(write_jsonl(folder / "a.jsonl", [{"messages": turns}])) == wanted
    assert said(write_csv(folder / "b.csv", [(json.dumps(turns),)], ("messages",))) == wanted
    shared = [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "Three."}]
    assert said(write_jsonl(folder / "c.jsonl", [{"conversations": shared}])) == ASKED


def test_system_message_for_rows_without(folder: Path) -> None:
    path = write_csv(folder / "a.csv", [("Who?", "Three.")])
    assert said(path, system="You judge.") == [[("system", "You judge."), *ASKED[0]]]
    own = write_csv(folder / "b.csv", [("You know.", "Who?", "Three.")], ("system", "prompt", "response"))
    assert said(own, system="You judge.") == [[("system", "You know."), *ASKED[0]]]


def test_column_mapping(folder: Path) -> None:
    path = write_csv(folder / "a.csv", [("Who?", "Three.")], ("question", "answer"))
    assert said(path, columns={"prompt": "question", "response": "answer"}) == ASKED
    with pytest.raises(InputProblem, match="maps prompt to frage, which is not there") as missing:
        said(path, columns={"prompt": "frage"})
    assert "question, answer" in missing.value.hint
    with pytest.raises(InputProblem, match="prmpt is not a column we know"):
        said(path, columns={"prmpt": "question"})
    with pytest.raises(InputProblem, match="has the columns question, answer; looked for messages or") as unknown:
        said(path)
    assert "data.columns" in unknown.value.hint
    with pytest.raises(InputProblem, match=r"looked for input\+output$"):
        said(path, "input_output")


def test_csv_as_spreadsheets_write_it(folder: Path) -> None:
    path = folder / "a.csv"
    long = "x" * 200_000
    text = f'\ufeffprompt,response\r\n"Who,\r\n ""then""?",Three.\r\n\r\nLong?,{long}\r\n'
    path.write_bytes(text.encode())
    examples = load(path).train
    assert [example.messages[0]["content"] for example in examples] == ['Who,\r\n "then"?', "Long?"]
    assert examples[1].messages[1]["content"] == long
    assert [example.origin for example in examples] == [f"{path} row 1 (line 2)", f"{path} row 2 (line 5)"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"prompt": "a", "response": ""}', "response is empty"),
        ('{"prompt": "a", "response": "  "}', "response is empty"),
        ('{"prompt": "a", "response": null}', "no response"),
        ('{"prompt": "a"}', "no response"),
        ('{"prompt": "a", "response": 3}', "response is a JSON int, not text"),
        ('{"prompt": " ", "response": "b"}', "prompt is empty"),
        ('{"prompt": "a"', "not valid JSON"),
        ('["a", "b"]', "a JSON list, not an object"),
        ('{"messages": "[1"}', "no prompt"),
        ("[" * 100_000, "not valid JSON: maximum recursion depth"),
        (r'{"prompt": "a\ud800", "response": "b"}', r"prompt has '\ud800' without its other half"),
    ],
)
def test_bad_jsonl_rows(folder: Path, text: str, reason: str) -> None:
    path = folder / "a.jsonl"
    path.write_text(f'{{"prompt": "a", "response": "b"}}\n\n{text}\n', encoding="utf-8")
    with pytest.raises(InputProblem) as bad:
        said(path)
    head, row = bad.value.message.splitlines()
    assert head == f"{path}: 1 of 2 rows cannot be used"
    assert row.startswith(f"  row 2 (line 3): {reason}")


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([{"role": "user", "content": "a"}], "no assistant turn"),
        ([], "no assistant turn"),
        ("{", "messages is not valid JSON"),
        ({"role": "user"}, "messages is not a list of messages"),
        (["a"], "message 1 is not an object"),
        ([{"role": "wolf", "content": "a"}], "message 1 has the role 'wolf'"),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}], "message 2 (assistant) is empty"),
        ([{"role": "user", "content": [{"text": "a"}]}], "message 1 has no text as its content"),
        ([{"role": ["a"], "content": "a"}], "message 1 has the role ['a']"),
        (r'[{"role": "assistant", "content": "\udc00"}]', r"message 1 has '\udc00' without its other half"),
        ("[" * 100_000, "messages is not valid JSON: maximum recursion depth"),
    ],
)
def test_bad_conversations(folder: Path, turns: Any, reason: str) -> None:
    with pytest.raises(InputProblem) as bad:
        said(write_jsonl(folder / "a.jsonl", [{"messages": turns}]))
    assert f"row 1 (line 1): {reason}" in bad.value.message


def test_all_bad_rows_are_counted_and_five_are_shown(folder: Path) -> None:
    rows = [("Who?", "Three."), *[("Who?", "")] * 7]
    with pytest.raises(InputProblem) as bad:
        said(write_csv(folder / "a.csv", rows))
    lines = bad.value.message.splitlines()
    assert lines[0].endswith("a.csv: 7 of 8 rows cannot be used")
    assert [line.split(":")[0] for line in lines[1:6]] == [f"  row {n} (line {n + 1})" for n in range(2, 7)]
    assert lines[6:] == ["  and 2 more"]


def test_bad_rows_of_all_files_are_shown_at_once_or_left_out(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    one = write_csv(folder / "a.csv", [("Who?", "Three."), ("Who?", "")])
    two = write_csv(folder / "b.csv", [("", "Three."), ("Who?", "Four.")])
    with pytest.raises(InputProblem) as bad:
        load(one, eval_files=str(two))
    assert bad.value.message.splitlines() == [
        f"{one}: 1 of 2 rows cannot be used",
        "  row 2 (line 3): response is empty",
        f"{two}: 1 of 2 rows cannot be used",
        "  row 1 (line 2): prompt is empty",
    ]
    assert "data.skip_bad_rows" in bad.value.hint
    examples = load(one, two, skip_bad_rows=True)
    assert [row.messages[1]["content"] for row in examples.train] == ["Three.", "Four."]
    assert examples.skipped.bad == 2
    assert "response is empty" in caplog.text and "prompt is empty" in caplog.text
    with pytest.raises(InputProblem, match="no row is left"):
        load(write_csv(folder / "c.csv", [("", "Three.")]), skip_bad_rows=True)


def test_json_arrays_and_compressed_files(folder: Path) -> None:
    path = folder / "a.json"
    path.write_text(json.dumps([{"prompt": "Who?", "response": "Three."}], indent=1), encoding="utf-8-sig")
    assert said(path) == ASKED
    assert load(path).train[0].origin == f"{path} row 1"
    packed = folder / "b.jsonl.gz"
    packed.write_bytes(gzip.compress(b'{"prompt": "Who?", "response": "Three."}\n'))
    assert said(packed) == ASKED
    table = folder / "c.csv.gz"
    table.write_bytes(gzip.compress(b'prompt,response\n"Who?",Three.\n'))
    assert said(table) == ASKED


def test_broken_csv(folder: Path) -> None:
    path = folder / "a.csv"
    path.write_text("prompt,response\na,b\na,b,c\n", encoding="utf-8")
    with pytest.raises(InputProblem, match=r"row 2 \(line 3\): 3 fields, but the header has 2"):
        said(path)
    path.write_text('prompt,response\na,b\n"a,b\nc,d\n', encoding="utf-8")
    with pytest.raises(InputProblem, match=r"row 2 \(line 3\): not valid CSV"):
        said(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "holds no rows"),
        ("a.csv", b"prompt,response\n", "holds no rows"),
        ("a.jsonl", b"\n\n", "holds no rows"),
        ("a.csv", b"prompt,response\na,\xff\n", "not UTF-8"),
        ("a.xlsx", b"PK", "none of the kinds .csv, .jsonl, .json, .txt, .parquet"),
        ("a.jsonl", b'[\n{"prompt": "a", "response": "b"}\n]\n', "a JSON array"),
        ("a.json", b'[{"prompt": "a"}', "not valid JSON"),
        ("a.json", b"[]", "holds no rows"),
        ("a.json", b'["a"]', r"row 1: a JSON str, not an object"),
        ("a.csv.gz", b"prompt,response", "not a whole gzip file"),
        ("a.csv", b"prompt,response,prompt\na,b,c\n", r"header \(line 1\) has the column 'prompt' twice"),
        ("a.csv", "prompt,response\na,b\n".encode("utf-16-le"), r"header \(line 1\) holds NUL bytes"),
    ],
)
def test_files_that_are_no_data(folder: Path, name: str, content: bytes, message: str) -> None:
    path = folder / name
    path.write_bytes(content)
    with pytest.raises(InputProblem, match=message):
        said(path)


def test_missing_file_and_directory(folder: Path) -> None:
    with pytest.raises(InputProblem, match=r"none\.csv: no such file"):
        said(folder / "none.csv")
    (folder / "dir.csv").mkdir()
    with pytest.raises(InputProblem, match=r"dir\.csv: .*doesn't contain any data files"):
        said(folder / "dir.csv")


def test_what_is_held_out_does_not_depend_on_how_much_is_used(folder: Path) -> None:
    path = write_csv(folder / "a.csv", make_rows(40))
    half = load(path, validation_split=0.2)
    assert (len(half.train), len(half.held_out)) == (32, 8)
    assert not {row.origin for row in half.train} & {row.origin for row in half.held_out}
    fewer = load(path, validation_split=0.2, max_train_samples=5, max_eval_samples=4)
    assert fewer.train == half.train[:5]
    assert fewer.held_out == half.held_out[:4]
    assert load(path, validation_split=0.2, seed=2).held_out != half.held_out


def test_held_out_files(folder: Path) -> None:
    one, two = write_csv(folder / "a.csv", make_rows(3)), write_csv(folder / "b.csv", make_rows(2))
    examples = load(one, eval_files=str(two))
    assert (len(examples.train), len(examples.held_out)) == (3, 2)
    with pytest.raises(InputProblem, match=r"b\.csv is in data\.train_files and in") as both:
        load(one, two, eval_files=str(two))
    assert "validation_split" in both.value.hint
