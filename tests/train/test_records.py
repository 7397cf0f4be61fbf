"""What a run keeps of its best, in which order it takes its rows, and the card that it leaves."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.tiny import make_rows, write_csv, write_run
from tests.train.conftest import metrics, progress, train


def test_the_best_checkpoint_is_the_result_and_patience_ends_the_run(folder: Path, tiny_model: Path) -> None:
    # Two rows learnt by heart: what is held out gets worse after a while.
    data = write_csv(folder / "data.csv", make_rows(2))
    held_out = write_csv(folder / "held_out.csv", make_rows(12, seed=5))
    run = write_run(
        folder / "run",
        tiny_model,
        data,
        data__eval_files=str(held_out),
        model__adapter="none",
        optim__learning_rate=5e-3,
        optim__lr_scheduler_type="constant",
        optim__max_steps=60,
        eval__eval_steps=3,
        eval__metric_for_best_model="eval_loss",
        eval__early_stopping_patience=3,
        output__save_steps=1000,
        output__save_total_limit=1,
        output__logging_steps=7,
    )
    (run.parent / "prediction.json").write_text('{"schema": 1, "seconds_per_step": 0.25, "from": "test-1"}')
    ended = train(run)
    assert ended.code == 0, ended.err
    evaluated = {line["step"]: line["eval_loss"] for line in metrics(run.parent) if "eval_loss" in line}
    last = max(evaluated)
    result = evaluated.pop(last)
    best = min(evaluated, key=lambda step: (step == 0, evaluated[step]))
    assert 0 < best < last < 60
    assert last - best == 9, evaluated
    # The last measurement is of the result, which is the best checkpoint and not the last.
    assert result == pytest.approx(evaluated[best], rel=1e-5)
    kept = {path.name for path in (run.parent / "checkpoints").iterdir()}
    assert kept == {f"checkpoint-{best}", f"checkpoint-{last}"}
    final = run.parent / "final_model/model.safetensors"
    assert final.read_bytes() == (run.parent / f"checkpoints/checkpoint-{best}/model.safetensors").read_bytes()
    assert progress(run.parent)["phase"] == "finished"

    card = json.loads((run.parent / "run_card.json").read_text(encoding="utf-8"))
    assert card["config"]["optim"]["max_steps"] == 60
    assert [d["sha256"] for d in card["data"]] == [hashlib.sha256(p.read_bytes()).hexdigest() for p in (data, held_out)]
    assert card["versions"]["torch"].startswith("2.")
    assert card["predicted"] == {"seconds_per_step": 0.25, "from": "test-1"}
    assert card["measured"]["seconds_per_step"] > 0 and card["measured"]["peak_memory"] > 2**20
    assert card["measured"]["eval_after"]["eval_loss"] == result
    # Every step takes the same two rows. Those between the last usual log line and the early end count too.
    trained = [line for line in metrics(run.parent) if "loss" in line]
    each = round(trained[0]["tokens_per_second"] * trained[0]["seconds_per_step"])
    assert trained[-1]["step"] == last and last % 7
    assert card["measured"]["tokens"] == each * last
    assert all(0 <= line["data_wait"] < 1 for line in trained)
    assert (card["measured"]["model_type"], card["measured"]["adapter"]) == ("qwen2", "none")
    assert card["measured"]["gpu"] is None
    words = (run.parent / "run_card.md").read_text(encoding="utf-8")
    assert f"| eval_loss | {evaluated[0]:.6g} | {result:.6g} |" in words
    assert "| seconds_per_step | 0.25 | " in words
    assert "into an empty directory" in words
    assert str(run.parent) not in words + json.dumps(card)

    # Done is done: another attempt trains nothing more, and comes to the same result. On a GPU the same weights do
    # not always measure the same: the result is no new best.
    lines = (run.parent / "metrics.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (run.parent / "metrics.jsonl").write_text("".join(lines[:-1]) + lines[-1].replace(str(result), str(result - 1e-6)))
    again = train(run)
    assert again.code == 0, again.err
    measured = json.loads((run.parent / "training_metrics.json").read_text(encoding="utf-8"))
    assert measured["tokens"] == card["measured"]["tokens"] > 0
    assert "nothing is left to train" in again.out
    assert final.read_bytes() == (run.parent / f"checkpoints/checkpoint-{best}/model.safetensors").read_bytes()


def test_a_metric_that_nobody_measures_is_noticed_before_training(folder: Path, data: Path, tiny_model: Path) -> None:
    changes = {"eval_steps": 4, "metric_for_best_model": "eval_los"}
    ended = train(write_run(folder / "run", tiny_model, data, data__validation_split=0.25, eval=changes))
    assert ended.code == 2
    assert "there is no metric eval_los\nhint: did you mean eval_loss?" in ended.err
    assert not [line for line in metrics(folder / "run") if "loss" in line]
