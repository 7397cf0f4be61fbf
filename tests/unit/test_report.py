"""The report on one run, from what it left behind: asked and used, expected and measured, choice, health, advice."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from clusterctl.adapters import store
from clusterctl.model import Resources
from clusterctl.record import JobEntry, Record
from tests.project import Answer
from trainers.config import parse

Cli = Callable[..., Answer]
NOW = time.time()
BEGAN = NOW - 10_000
RUN = "sft-20261123-aaaa"
CARD = "NVIDIA A800 80GB PCIe"


@pytest.fixture
def run_dir(folder: Path) -> Path:
    """A run of four A800 on Slurm, as it lies there before anything happened."""
    (folder / "clusterctl.yaml").write_text("partitions: {a800: fast, a40: slow, cpu: cpu}\n", encoding="utf-8")
    path = store.make_run_dir(folder / "logs", RUN)
    resources = Resources(gpus_per_node=4, gpu_type="a800", cpus_per_task=16, mem="200G", time_limit=86400)
    record = Record(
        run_id=RUN, name="sft", stage="sft", kind="train", recipe="sft", profile="a800-4", scheduler="slurm",
        resources=resources, fingerprint="f", created_at=BEGAN, user="u", host="h", command=(),
        jobs=(JobEntry("token", BEGAN, "7"),),
    )  # fmt: skip
    store.write_record(path, record)
    config = {
        "stage": "sft",
        "model": {"model_name_or_path": "Qwen/Qwen2.5-1.5B-Instruct", "gradient_checkpointing": True},
        "data": {"train_files": ["x.csv"], "max_length": 1024},
        "optim": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4},
        "parallel": {"strategy": "ddp", "launcher": "torchrun", "processes_per_node": 4},
        "precision": {"dtype": "bf16"},
    }
    (path / "run.yaml").write_text(yaml.safe_dump(parse(config).model_dump(mode="json")), encoding="utf-8")
    return path


def note(run_dir: Path, *events: dict[str, Any]) -> None:
    with (run_dir / "attempts.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(json.dumps({"schema": 1, "job_id": "7", "host": "n1", **event}) + "\n" for event in events)


def begin(run_dir: Path, name: str = CARD) -> None:
    """It began after 1000 s, and wrote down its cards."""
    note(run_dir, {"event": "begin", "attempt": 1, "time": BEGAN + 1000})
    gpus = "".join(f"  gpu: {name}, 81920 MiB, GPU-{number}\n" for number in range(4))
    (run_dir / "environment_info.txt").write_text(f"python: 3.11\nhost: n1\n{gpus}torch: 2\n", encoding="utf-8")


def train(run_dir: Path, steps: int, phase: str = "training", **more: Any) -> None:
    """Lines of metrics every 5 steps of 4 s, and the progress; a busy GPU that once was not."""
    lines = [
        {
            "schema": 1, "attempt": 1, "step": step, "time": BEGAN + 1100 + 4 * step, "grad_norm": 1.0,
            "loss": 1.7 - 0.8 * step / 400, "seconds_per_step": 4.0, "tokens_per_second": 9600.0, "mfu": 0.1,
            "peak_memory": 12 * 2**30, "gpu_utilization": 40.0 if step == 50 else 95.0, "data_wait": 0.03,
        }
        for step in [1, *range(5, steps + 1, 5)]
    ]  # fmt: skip
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    said = {"phase": phase, "attempt": 1, "step": steps, "max_steps": 400, "loss": 0.9, "updated_at": NOW, **more}
    (run_dir / "progress.json").write_text(json.dumps({"schema": 1, **said}), encoding="utf-8")


def finish(run_dir: Path) -> None:
    begin(run_dir)
    train(run_dir, 400, "finished")
    note(run_dir, {"event": "end", "attempt": 1, "time": BEGAN + 2800, "exit_code": 0, "decision": "done"})
    summary = {"steps": 400, "last_loss": 0.9, "train_seconds": 1620.0, "peak_memory": 12 * 2**30}
    (run_dir / "training_metrics.json").write_text(json.dumps(summary), encoding="utf-8")
    expected = {"from_test": "sft-test", "seconds_per_step": 3.2, "peak_memory": 12 * 2**30, "train_seconds": 1300.0}
    (run_dir / "prediction.json").write_text(json.dumps(expected), encoding="utf-8")
    places = [
        {"placement": {"profile": "a800-4"}, "reason": "ends first", "wait": 40000},
        {"placement": {"profile": "a40-1"}, "reason": "8 times as long", "wait": 0},
    ]
    (run_dir / "choice.json").write_text(json.dumps({"profile": "a800-4", "places": places}), encoding="utf-8")


def test_a_finished_run_in_80_columns(cli: Cli, run_dir: Path) -> None:
    finish(run_dir)
    answer = cli("report", COLUMNS="80")
    assert (answer.code, answer.err) == (0, "")
    assert all(len(line) <= 80 for line in answer.out.splitlines()), answer.out
    text = " ".join(answer.out.split())
    for said in (
        f"{RUN}: COMPLETED: finished",
        "profile a800-4: 4 a800, 16 CPUs, 200G memory, 1d 0h",
        f"4 x {CARD}",
        "waited 16m 40s, ran 30m 00s, 2% of its limit, 89% of that in steps",
        "400/400, 4 s each, 9,600 tokens/s, 10% of the GPUs' peak (MFU), 3% waiting for data",
        "94% on average, 40 to 95%, below 80% in 1% of the lines",
        "steps 5 to 400",
        "GPU hours 2",
        "Expected (the test sft-test) and measured",
        "seconds per step 3.2 s 4 s 1.25",
        "train seconds 21m 40s 27m 00s 1.25",
        "a800-4 (taken) ends first",
        "good loss 1.57 -> 1.03 in 399 steps",
        "it took 30m 00s of its limit of 1d 0h",
        "--set profile.time=0-00:50:00",
        "an A40 would hold it: 1",
        " of 44.4 GiB, about 8.",
        " times as long, but it was to start 11h 06m earlier (estimate)",
        "--set model.gradient_checkpointing=false fits too",
    ):
        assert said in text, f"{said}\n{answer.out}"


def test_the_same_for_programs(cli: Cli, run_dir: Path) -> None:
    finish(run_dir)
    data = cli("report", RUN, "--json").json["data"]
    assert data["used"]["waited"] == pytest.approx(1000) and data["used"]["gpu_hours"] == pytest.approx(2)
    assert data["used"]["peak_memory"] == 12 * 2**30 and len(data["used"]["utilization"]) == 80
    assert data["health"]["level"] == "healthy"
    assert {row["name"] for row in data["compared"]} == {"seconds_per_step", "peak_memory", "train_seconds"}
    assert any("A40" in one for one in data["advice"])


def test_waiting_between_attempts_counts(cli: Cli, run_dir: Path) -> None:
    begin(run_dir)
    train(run_dir, 100, "saved")
    note(
        run_dir,
        {"event": "end", "attempt": 1, "time": BEGAN + 2000, "exit_code": 85, "decision": "requeue"},
        {"event": "begin", "attempt": 2, "time": BEGAN + 5000},
        {"event": "end", "attempt": 2, "time": BEGAN + 5600, "exit_code": 0, "decision": "done"},
    )
    used = cli("report", "--json").json["data"]["used"]
    assert (used["attempts"], used["waited"], used["ran"]) == (2, pytest.approx(4000), pytest.approx(1600))


def test_a_run_that_has_not_begun_and_one_that_failed(cli: Cli, run_dir: Path) -> None:
    waiting = cli("report")
    assert waiting.code == 0 and "it has not begun" in waiting.out and "no metrics yet" in waiting.out
    begin(run_dir)
    train(run_dir, 20, "failed", error="CUDA out of memory")
    note(run_dir, {"event": "end", "attempt": 1, "time": BEGAN + 1200, "exit_code": 1, "decision": "stop"})
    failed = cli("report", "--json").json["data"]
    assert failed["health"]["level"] == "too early to say"
    assert (failed["step"], failed["used"]["ran"]) == (20, pytest.approx(200))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"places": [3], "health": 1, "step": "x"}', "[" * 50_000])
def test_torn_files_and_hostile_names_break_no_report(cli: Cli, run_dir: Path, text: str) -> None:
    finish(run_dir)
    begin(run_dir, name="\x1b[31mred [bold] card")
    for name in ("prediction.json", "choice.json", "training_metrics.json", "run.yaml", "metrics.jsonl"):
        (run_dir / name).write_text(text, encoding="utf-8")
    answer = cli("report", COLUMNS="80")
    assert answer.code == 0, answer.err
    assert "Traceback" not in answer.err and "\x1b" not in answer.out
    assert "red [bold] card" in answer.out


def test_no_such_run(cli: Cli, folder: Path) -> None:
    assert cli("report", "nothing").code == 6
