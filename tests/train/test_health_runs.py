"""The verdict on the metrics of real runs: one learns what is preferred, one cannot, one answers."""

from __future__ import annotations

from pathlib import Path

from clusterctl.adapters import metrics
from clusterctl.runs.health import judge
from clusterctl.status import Health, Level
from tests.tiny import make_rows, write_csv, write_jsonl, write_run
from tests.train.preferences import pairs, run_all

STEPS = 100


def test_real_runs_are_judged_by_what_they_did(folder: Path, tiny_model: Path) -> None:
    preferred = write_jsonl(folder / "pairs.jsonl", pairs(400))
    answered = write_csv(folder / "rows.csv", make_rows(200))
    schedule = {
        "optim__max_steps": STEPS,
        "optim__per_device_train_batch_size": 4,
        "output__logging_steps": 4,
        "output__save_steps": 1000,
    }

    def write(name: str, stage: str, learning_rate: float) -> Path:
        data = preferred if stage == "dpo" else answered
        return write_run(folder / name, tiny_model, data, stage=stage, optim__learning_rate=learning_rate, **schedule)

    runs = {
        "learns": write("learns", "dpo", 3e-4),
        "idles": write("idles", "dpo", 1e-9),
        "answers": write("answers", "sft", 5e-3),
    }
    run_all(*runs.values())
    told: dict[str, Health] = {
        name: judge(metrics.glance(path.parent), "sft" if name == "answers" else "dpo", STEPS)
        for name, path in runs.items()
    }
    names = {name: {one.name: one.words for one in health.findings} for name, health in told.items()}
    assert told["learns"].level is Level.GOOD, names
    assert set(names["learns"]) == {"loss", "margin", "accuracy"}
    assert told["idles"].level is Level.WATCH, names
    assert "the margin does not grow" in names["idles"]["margin"]
    assert told["answers"].level is Level.GOOD, names
