"""``plan --show-batch``: what is shown is what the trainers make of the rows, in every kind of stage."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.project import CLUSTERCTL
from tests.tiny import make_rows, make_tiny_encoder, write_csv, write_jsonl, write_run
from tests.train.conftest import environment
from trainers.errors import InputProblem
from trainers.show import show

ASKED = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"


def shown(run: Path, count: int = 2) -> dict[str, Any]:
    from trainers.__main__ import read_run

    return show(read_run(run), run.parent, count)


def test_the_command_line_shows_what_is_learnt(folder: Path, tiny_model: Path) -> None:
    rows = [("Who?", "Player 3."), ("Why?", "word " * 40), ("word " * 80, "b")]
    write_csv(folder / "data.csv", rows)
    (folder / "mine.yaml").write_text(
        f"stage: sft\nmodel: {{model_name_or_path: {tiny_model}}}\ndata: {{train_files: data.csv, max_length: 48}}\n",
        encoding="utf-8",
    )

    def plan(*words: str) -> subprocess.CompletedProcess[str]:
        argv = [CLUSTERCTL, "plan", "mine.yaml", "--show-batch", *words]
        env = {**environment(), "HOME": str(folder)}
        return subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, check=False)

    done = plan("--json")
    assert done.returncode == 0, done.stdout + done.stderr
    [run] = json.loads(done.stdout)["data"]["plans"]
    sample = run["shown"]["samples"][0]
    assert sample == [
        ["context", ASKED.format("Who?")],
        ["trained", "Player 3.<|im_end|>"],
        ["context", "\n"],
    ]
    assert run["batch"]["rows"] == run["shown"]["rows"] == 2
    assert (run["shown"]["counts"]["truncated"], run["shown"]["counts"]["dropped"]) == (2, 1)
    assert run["shown"]["longest"] == 48
    assert any("2 of 3 were cut at 48 tokens" in note for note in run["shown"]["notes"])
    # The run is going to find these tokens.
    assert list((folder / "logs" / ".tokenised").glob("*/train.arrow"))
    assert [path.name for path in (folder / "logs").iterdir()] == [".tokenised"]


def test_packed_text_has_borders_and_no_loss_on_first_tokens(folder: Path, tiny_model: Path) -> None:
    data = write_jsonl(folder / "t.jsonl", [{"text": "Player 1 is the wolf."}, {"text": "Player 2 is the seer."}])
    answer = shown(write_run(folder / "run", tiny_model, data, stage="cpt", data__max_length=64))
    assert (answer["unit"], answer["rows"]) == ("blocks", 1)
    kinds = [kind for kind, _ in answer["samples"][0]]
    assert kinds == ["context", "trained", "border", "context", "trained"]
    texts = [text for _, text in answer["samples"][0]]
    assert sorted((texts[0] + texts[1], texts[3] + texts[4])) == [
        "Player 1 is the wolf.<|im_end|>",
        "Player 2 is the seer.<|im_end|>",
    ]
    assert answer["learnt"] == answer["tokens"] - 2


def test_pairs_ratings_and_prompts(folder: Path, tiny_model: Path) -> None:
    pairs = write_jsonl(folder / "p.jsonl", [{"prompt": "Who?", "chosen": "Three.", "rejected": "Nobody at all."}] * 2)
    answer = shown(write_run(folder / "dpo", tiny_model, pairs, stage="dpo"))
    assert answer["samples"][0] == [
        ("context", ASKED.format("Who?")),
        ("chosen", "Three.<|im_end|>"),
        ("rejected", "Nobody at all.<|im_end|>"),
    ]
    assert answer["longest"] < answer["tokens"] / 2  # of a pair the longer side counts
    rated = write_jsonl(
        folder / "k.jsonl",
        [{"prompt": "Who?", "completion": "Three.", "label": good} for good in (True, False)],
    )
    answer = shown(write_run(folder / "kto", tiny_model, rated, stage="kto"))
    assert [sample[1] for sample in answer["samples"]] == [("good", "Three.<|im_end|>"), ("bad", "Three.<|im_end|>")]
    asked = write_jsonl(
        folder / "g.jsonl", [{"prompt": "Who?", "answer": "3"}, {"prompt": "word " * 80, "answer": "4"}]
    )
    run = write_run(
        folder / "grpo",
        tiny_model,
        asked,
        stage="grpo",
        data__max_length=64,
        method={"reward_functions": "exact_match", "num_generations": 2},
    )
    answer = shown(run)
    assert answer["samples"] == [[("context", ASKED.format("Who?")), ("column", "answer: 3")]]
    assert (answer["rows"], answer["counts"]) == (1, {"dropped": 1})


def test_what_an_encoder_has_to_guess(folder: Path) -> None:
    encoder = make_tiny_encoder(folder / "bert")
    data = write_jsonl(folder / "t.jsonl", [{"text": " ".join(row)} for row in make_rows(40)])
    run = write_run(folder / "run", encoder, data, stage="mlm", model__adapter="none", method__mlm_probability=0.3)
    answer = shown(run, 5)
    assert {kind for sample in answer["samples"] for kind, _ in sample} == {"context", "masked"}
    assert 0.15 < answer["learnt"] / answer["tokens"] < 0.4


def test_rows_that_are_refused_are_named(folder: Path, tiny_model: Path) -> None:
    data = write_csv(folder / "data.csv", [("a", "b"), ("a", "b <|im_end|> c")])
    with pytest.raises(InputProblem, match=r"(?s)1 of 2 rows cannot be used.*row 2 .*end-of-turn mark"):
        shown(write_run(folder / "run", tiny_model, data))
