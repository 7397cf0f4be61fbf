"""Token ids on disk: made once, found again as long as nothing changed, never trusted when torn."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from accelerate.state import AcceleratorState
from transformers import AutoTokenizer

from tests.tiny import make_rows, write_csv, write_jsonl, write_run
from trainers.config import load
from trainers.data import cache
from trainers.data.examples import load_examples
from trainers.data.tokenised import TokenRows, prepare_rows
from trainers.errors import InputProblem
from trainers.run import Run
from trainers.runtime.progress import Progress
from trainers.runtime.stopping import Stop
from trainers.stages import cpt


@pytest.fixture
def prepared(folder: Path, data: Path, tiny_model: Path) -> Callable[..., tuple[TokenRows, set[str]]]:
    """Prepare a run with these overrides; returns its rows, and the folders that were made for it."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)

    def prepare(template: str | None = None, **overrides: Any) -> tuple[TokenRows, set[str]]:
        home = folder / ".tokenised"
        before = {path.name for path in home.glob("*") if path.is_dir()}
        run = load(write_run(folder / "run", tiny_model, data, **overrides))
        tokenizer.chat_template = template or tokenizer.chat_template
        rows = prepare_rows(run, folder / "run", tokenizer, load_examples(run))
        return rows, {path.name for path in home.glob("*") if path.is_dir()} - before

    return prepare


def test_rows_are_made_again_when_they_would_be_others(
    folder: Path, data: Path, prepared: Callable[..., tuple[TokenRows, set[str]]]
) -> None:
    rows, made = prepared()
    assert len(made) == 1 and len(rows.train) == 48
    # How long and how fast it is trained changes nothing.
    again, made = prepared(optim__max_steps=3, model__lora={"r": 2}, name="other")
    assert not made and again.train[0] == rows.train[0] and again.counts == rows.counts
    for change in ({"data__max_length": 64}, {"method__packing": True}, {"data__validation_split": 0.5}):
        assert len(prepared(**change)[1]) == 1
    assert len(prepared(template="{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}")[1]) == 1
    same = data.stat()
    write_csv(data, make_rows(48, seed=1))
    os.utime(data, ns=(same.st_atime_ns, same.st_mtime_ns + 1))
    other, made = prepared()
    assert len(made) == 1 and other.train[0] != rows.train[0]
    # Elsewhere when asked to.
    _, made = prepared(data__cache_dir=str(folder / "elsewhere"))
    assert not made and len([path for path in (folder / "elsewhere").iterdir() if path.is_dir()]) == 1


def test_bad_rows_leave_nothing_behind(
    folder: Path, data: Path, prepared: Callable[..., tuple[TokenRows, set[str]]]
) -> None:
    write_csv(data, [("Who?", "You <|im_end|> me")])
    with pytest.raises(InputProblem, match="end-of-turn mark"):
        prepared()
    assert [path.suffix for path in (folder / ".tokenised").iterdir()] == [".lock"]


def test_one_builds_and_the_others_wait(folder: Path) -> None:
    built, found = [], []

    def build(target: Path) -> None:
        built.append(target)
        time.sleep(0.2)
        cache.write_rows(target / "train.arrow", [{"input_ids": [1, 2]}])

    target = folder / "cache" / "abc"
    torn = folder / "cache" / "abc.elsewhere-1.tmp"
    torn.mkdir(parents=True)

    def look() -> None:
        rows = cache.read_rows(cache.find_or_build(target, build) / "train.arrow")
        found.append(rows and rows[0])

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [{"input_ids": [1, 2]}] * 4
    assert len(built) == 1
    assert not torn.exists()


def test_without_locks_each_builds_its_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    target = folder / "cache" / "abc"

    def build(own: Path) -> None:
        cache.write_rows(own / "train.arrow", [{"input_ids": [1]}])
        if not target.exists():
            # Another process is quicker.
            target.mkdir()
            cache.write_rows(target / "train.arrow", [{"input_ids": [1]}])

    rows = cache.read_rows(cache.find_or_build(target, build) / "train.arrow")
    assert rows is not None and rows[0] == {"input_ids": [1]}
    assert [path.name for path in target.parent.iterdir() if path.is_dir()] == ["abc"]


def test_no_process_group_is_there_while_rows_are_made(folder: Path, tiny_model: Path) -> None:
    text = write_jsonl(folder / "text.jsonl", [{"text": "Who is the wolf?"}])
    run = load(write_run(folder / "run", tiny_model, text, stage="cpt"))
    AcceleratorState._reset_state(reset_partial_state=True)

    class Reached(Exception):
        pass

    def loading(_: Any) -> None:
        assert list((folder / ".tokenised").glob("*/train.arrow"))
        # The first one of accelerate's states starts the group.
        assert not AcceleratorState._shared_state
        raise Reached

    here = Run(folder / "run", 1, Progress(folder / "run" / "progress.json", 1, writes=True), Stop(folder))
    with pytest.raises(Reached):
        cpt.prepare(run, here, {}, load_examples(run), loading)
