"""Where rows come from beside text files, how several become one, and what a login node looks at."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import make_rows, write_csv, write_jsonl
from tests.unit.conftest import Answer
from tests.unit.test_data import load
from trainers.config import parse
from trainers.data import examples as reading
from trainers.data.examples import look_at_examples
from trainers.errors import InputProblem

ROWS = [{"prompt": f"Who is {number}?", "response": f"Player {number}."} for number in range(5)]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import datasets
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf-datasets")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))


def asked(rows: Any) -> list[str]:
    return [row.messages[0]["content"] for row in rows]


QUESTIONS = [row["prompt"] for row in ROWS]


def test_parquet(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / "a.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), path)
    assert asked(load(path).train) == QUESTIONS
    assert load(path).train[1].origin == f"{path} row 2"
    chat = [{"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Three."}]}]
    pq.write_table(pa.Table.from_pylist(chat), folder / "chat.parquet")
    assert load(folder / "chat.parquet").train[0].messages == chat[0]["messages"]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputProblem, match=r"a\.parquet: not a whole parquet file"):
        load(path)
    with pytest.raises(InputProblem, match=r"b\.parquet: no such file"):
        load(folder / "b.parquet")


def test_saved_data_sets(folder: Path) -> None:
    from datasets import Dataset, DatasetDict

    alone, both = folder / "alone", folder / "both"
    Dataset.from_list(ROWS).save_to_disk(alone)
    assert asked(load(alone).train) == QUESTIONS
    DatasetDict({"train": Dataset.from_list(ROWS[:3]), "test": Dataset.from_list(ROWS[3:])}).save_to_disk(both)
    halves = load(both, eval_files=str(both))
    assert (asked(halves.train), asked(halves.held_out)) == (QUESTIONS[:3], QUESTIONS[3:])
    assert asked(load(both, dataset_split="test").train) == QUESTIONS[3:]
    with pytest.raises(InputProblem, match="has no split valid, but train, test"):
        load(both, dataset_split="valid")
    # Without splits the same data set cannot be both.
    with pytest.raises(InputProblem, match=r"in data\.train_files and in data\.eval_files"):
        load(alone, eval_files=str(alone))
    next(alone.glob("*.arrow")).unlink()
    with pytest.raises(InputProblem, match="alone: not a whole saved data set"):
        load(alone)


def test_a_folder_as_the_hub_has_it(folder: Path) -> None:
    path = folder / "downloaded"
    path.mkdir()
    write_jsonl(path / "train.jsonl", ROWS[:3])
    write_jsonl(path / "test.jsonl", ROWS[3:])
    halves = load(path, eval_files=str(path))
    assert (asked(halves.train), asked(halves.held_out)) == (QUESTIONS[:3], QUESTIONS[3:])
    with pytest.raises(InputProblem, match="downloaded: Unknown split") as bad:
        load(path, dataset_split="valid")
    assert "data.dataset_split" in bad.value.hint


def test_the_hub_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library is a stand-in here: what is asked of it is what was configured."""
    import datasets

    ways: set[bool] = set()

    def load_dataset(*args: Any, **kwargs: Any) -> Any:
        assert args == ("org/name", "small")
        assert kwargs["split"] in ("train", "test[:2]")
        ways.add(kwargs["streaming"])
        chosen = ROWS[:2] if kwargs["split"] == "test[:2]" else ROWS
        found = datasets.Dataset.from_list([{"text": row["prompt"]} for row in chosen])
        return found.to_iterable_dataset() if kwargs["streaming"] else found

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    for streaming in (False, True):
        split = {"dataset_config_name": "small", "eval_dataset_split": "test[:2]", "streaming": streaming}
        halves = load("org/name", stage="cpt", eval_files="org/name", **split)
        assert [row.text for row in halves.train] == QUESTIONS
        assert [row.text for row in halves.held_out] == QUESTIONS[:2]
    assert ways == {False, True}


def test_the_hub_that_is_not_reached(tmp_path: Path) -> None:
    (tmp_path / "hub" / "datasets--Anthropic--hh-rlhf").mkdir(parents=True)
    with pytest.raises(InputProblem, match="Antropic/hh-rlhf: no such file, and the hub cannot be reached") as bad:
        load("Antropic/hh-rlhf", stage="dpo")
    for word in ("HF_ENDPOINT", "hf download --repo-type dataset", "did you mean Anthropic/hh-rlhf?"):
        assert word in bad.value.hint


def test_a_name_that_is_nothing(folder: Path) -> None:
    write_csv(folder / "train.csv", make_rows(1))
    with pytest.raises(InputProblem, match="no such file") as bad:
        load(folder / "train.cvs")
    assert "train.csv?" in bad.value.hint


# Mixing and splitting


def numbered(folder: Path, name: str, count: int) -> Path:
    return write_jsonl(folder / f"{name}.jsonl", [{"text": f"{name} {number}"} for number in range(count)])


def test_a_mixture_has_the_shares_that_were_asked_for(folder: Path) -> None:
    a, b = numbered(folder, "a", 3000), numbered(folder, "b", 400)
    share = {"probabilities": [0.8, 0.2]}
    mixed = [row.text for row in load(a, b, stage="cpt", **share).train]
    counts = Counter(text[0] for text in mixed)
    assert counts["b"] == 400  # ends where the first one is used up
    assert 0.77 < counts["a"] / len(mixed) < 0.83
    assert len(set(mixed)) == len(mixed)
    assert [text for text in mixed if text[0] == "a"] == [f"a {number}" for number in range(counts["a"])]
    assert Counter(text[0] for text in mixed[:500])["b"] > 60  # mixed from the beginning
    assert mixed == [row.text for row in load(a, b, stage="cpt", **share).train]
    assert mixed != [row.text for row in load(a, b, stage="cpt", seed=2, **share).train]
    plain = [row.text for row in load(a, b, stage="cpt").train]
    assert (len(plain), plain[2999:3001]) == (3400, ["a 2999", "b 0"])


@pytest.mark.parametrize("probabilities", [[], [0.5, 0.5]])
def test_what_is_held_out_is_never_trained_on(folder: Path, probabilities: list[float]) -> None:
    files = numbered(folder, "a", 1500), numbered(folder, "b", 1500)
    data = {"validation_split": 0.1, "probabilities": probabilities}
    halves = load(*files, stage="cpt", **data)
    train, held_out = ({row.text for row in rows} for rows in (halves.train, halves.held_out))
    assert len(held_out) == 300
    assert {text[0] for text in held_out} == {"a", "b"}
    assert not train & held_out
    if not probabilities:
        assert len(train) == 2700
    few = load(*files, stage="cpt", **data, max_train_samples=7, max_eval_samples=3)
    assert [row.text for row in few.train] == [row.text for row in halves.train][:7]
    assert [row.text for row in few.held_out] == [row.text for row in halves.held_out][:3]


def test_one_row_cannot_be_split(folder: Path) -> None:
    path = numbered(folder, "a", 1)
    with pytest.raises(InputProblem, match="one row cannot be split"):
        list(load(path, stage="cpt", validation_split=0.5).train)
    assert len(list(load(numbered(folder, "b", 2), stage="cpt", validation_split=0.01).held_out)) == 1


# The login node


def look(*paths: Path | str, stage: str = "sft", **data: Any) -> list[str]:
    data = {"train_files": [str(path) for path in paths], **data}
    return look_at_examples(parse({"stage": stage, "model": {"model_name_or_path": "m"}, "data": data}))


def test_a_login_node_looks_at_every_row(folder: Path) -> None:
    good, bad = write_csv(folder / "a.csv", [("Who?", "Three.")]), write_csv(folder / "b.csv", [("Who?", "")])
    assert look(good) == []
    with pytest.raises(InputProblem, match=r"row 1 \(line 2\): response is empty"):
        look(good, eval_files=str(bad))
    assert look(good, bad, skip_bad_rows=True) == [
        f"{bad}: 1 of 1 rows are left out (data.skip_bad_rows)\n  row 1 (line 2): response is empty"
    ]
    with pytest.raises(InputProblem, match="no row is left"):
        look(bad, skip_bad_rows=True)
    with pytest.raises(InputProblem, match="one row cannot be split"):
        look(good, validation_split=0.5)
    with pytest.raises(InputProblem, match="none of text"):
        look(write_jsonl(folder / "c.jsonl", [{"text": "a"}, {"x": "b"}]), stage="cpt")


def test_a_login_node_opens_no_parquet_and_reads_large_files_in_part(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "a.parquet").write_bytes(b"not looked at")
    (folder / "saved").mkdir()
    entries = [folder / "a.parquet", folder / "saved", "org/name"]
    assert look(*entries) == [f"{entry}: its rows are looked at when the job starts" for entry in entries]
    monkeypatch.setattr(reading, "LOOK", 50_000)
    rows = [{"prompt": "Who?", "response": "Three."}] * 5000
    large = write_jsonl(folder / "large.jsonl", [*rows, {"prompt": "Who?"}])
    array = folder / "array.json"
    array.write_text("[" + ",".join(large.read_text().splitlines()) + "]", encoding="utf-8")
    text = folder / "text.txt"
    text.write_text("word\n" * 100_000, encoding="utf-8")
    note = "only its first rows were looked at, the others are when the job starts"
    assert look(large) == [f"{large}: {note}"]
    assert look(array) == [f"{array}: its rows are looked at when the job starts"]
    assert look(text, stage="cpt", text_fields="prompt") == [f"{text}: {note}"]
    with pytest.raises(InputProblem, match="row 5001"):
        load(large)


def test_looking_loads_no_library(folder: Path) -> None:
    path = write_csv(folder / "a.csv", make_rows(3))
    code = """
import sys
from trainers.config import parse
from trainers.data.examples import look_at_examples
for stage in ("sft", "cpt"):
    data = {"train_files": [*sys.argv[1:], "org/name"], "text_fields": "response"}
    look_at_examples(parse({"stage": stage, "model": {"model_name_or_path": "m"}, "data": data}))
heavy = {"torch", "transformers", "datasets", "pyarrow", "numpy", "pandas", "huggingface_hub"} & set(sys.modules)
assert not heavy, heavy
"""
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", code, str(path)], cwd=root, check=True)


def test_submit_takes_data_of_every_kind(cli: Any, recipe: Path, folder: Path) -> None:
    def submit(*names: str) -> Answer:
        data = ["--set", f"data.train_files=[{','.join(names)}]", "--set", "data.eval_files=[]"]
        return cli("submit", str(recipe), "--dry-run", *data)

    (folder / "saved").mkdir()
    answer = submit("saved", "org/name")
    assert answer.code == 0, answer.err
    for name in (folder / "saved", "org/name"):
        assert f"{name}: its rows are looked at when the job starts" in answer.err
    wrong = ("org/name.csv", "saved/name", "./org/name", "a/b/c", "name", "date.csv")
    answer = submit("saved", *wrong)
    assert answer.code == 2
    for name in wrong:
        assert f"data.train_files: there is no file {folder / name}" in answer.err
    assert "did you mean data.csv?" in answer.err
