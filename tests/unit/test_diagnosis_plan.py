"""``diagnose`` beyond the logs: what the metrics show, and what would fit of a run that ran out of memory."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from clusterctl.adapters import store
from clusterctl.adapters.slurm_words import explain_reason
from clusterctl.model import JobState
from clusterctl.runs import diagnose, status
from clusterctl.runs.find import Run
from clusterctl.runs.status import FOREGROUND_LOCK
from tests.unit.test_guard import checkpoint
from tests.unit.test_health import lines
from tests.unit.test_report import RUN, Cli, begin, finish, note, run_dir, train
from trainers.config import load

assert run_dir  # the fixture

OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate {} GiB. GPU 0 has a total capacity of 79.33 GiB"


def fail(path: Path, tried: str = "2.00", command: tuple[str, ...] = (), batch: int = 32, **optim: Any) -> None:
    """A run in the foreground that filled its A800."""
    values = yaml.safe_load((path / "run.yaml").read_text(encoding="utf-8"))
    values["optim"] |= {"per_device_train_batch_size": batch, "gradient_accumulation_steps": 1, **optim}
    values["optim"]["train_batch_size"] = batch * 4
    values["parallel"]["device"] = "cuda"
    (path / "run.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    record = store.read_record(path)
    store.write_record(path, dataclasses.replace(record, scheduler="local", jobs=(), command=command))
    (path / FOREGROUND_LOCK).touch()
    begin(path)
    (path / "logs/job.err").write_text(OOM.format(tried) + "\n", encoding="utf-8")
    end = {"event": "end", "attempt": 1, "time": 1e9, "exit_code": 1, "outcome": "failed", "decision": "stop"}
    note(path, {**end, "cause": "cuda_out_of_memory"})


def diagnosed(cli: Cli) -> dict[str, Any]:
    answer = cli("diagnose", RUN, "--json")
    assert answer.code == 0, answer.out + answer.err
    return dict(answer.json["data"])


def test_the_command_that_would_fit_with_its_numbers(cli: Cli, run_dir: Path) -> None:
    fail(run_dir)
    said = diagnosed(cli)
    assert said["cause"] == "cuda_out_of_memory"
    found = re.fullmatch(
        r"`(.*)`: (\d+) rows? at once, needs ([\d.]+) of ([\d.]+) GiB of an A800 \(estimate\)", said["remedy"]
    )
    assert found, said["remedy"]
    batch, needs, has = int(found[2]), float(found[3]), float(found[4])
    assert needs < has and found[1] == (
        f"clusterctl resume {RUN} --set optim.per_device_train_batch_size={batch}"
        f" --set optim.gradient_accumulation_steps={32 // batch}"
    )
    # The command does what it says: the rows of a step stay.
    assert load(run_dir / "run.yaml").optim.train_batch_size == 128


def test_the_more_it_wanted_the_more_is_changed(cli: Cli, run_dir: Path) -> None:
    """The planner's estimate is corrected by what the run filled and asked for beyond."""
    fail(run_dir, tried="60.00")
    little = _rows(diagnosed(cli)["remedy"])
    (run_dir / "logs/job.err").write_text(OOM.format("0.10") + "\n", encoding="utf-8")
    assert little < _rows(diagnosed(cli)["remedy"]) < 32


def _rows(remedy: str) -> int:
    found = re.search(r"per_device_train_batch_size=(\d+)", remedy)
    assert found, remedy
    return int(found[1])


def test_where_no_batch_helps_other_hardware_is_named(cli: Cli, run_dir: Path) -> None:
    """One row at once with checkpointing did not fit: the weights have to be shared out."""
    fail(
        run_dir,
        tried="9.00",
        command=("/bin/clusterctl", "submit", "sft", "--gpus", "4", "--notify", "***", "--name", "a b"),
        batch=1,
    )
    remedy = diagnosed(cli)["remedy"]
    assert re.match(r"`clusterctl submit sft --profile a800-\d-zero3(-offload)? --name 'a b' --set ", remedy), remedy
    assert "--gpus" not in remedy
    fail(run_dir, tried="9.00", command=("/bin/clusterctl", "submit", "whole-pipeline"), batch=1)
    assert re.match(r"submit sft with `--profile a800-\d-zero3(-offload)?`: ", diagnosed(cli)["remedy"])


def test_a_model_that_is_not_known_gets_the_next_change_without_a_number(cli: Cli, run_dir: Path) -> None:
    text = (run_dir / "run.yaml").read_text(encoding="utf-8")
    (run_dir / "run.yaml").write_text(text.replace("Qwen/Qwen2.5-1.5B-Instruct", "nobody/knows"), encoding="utf-8")
    fail(run_dir)
    checkpoint(run_dir, 20)
    assert diagnosed(cli)["remedy"].endswith("16 rows at once; whether that is enough is not known here")


@pytest.mark.parametrize(
    ("curve", "cause"),
    [
        (lambda step: 2.0, "flat_loss"),
        (lambda step: 2.0 - step / 200 if step < 300 else 0.5 + (step - 300) / 10, "diverging_loss"),
        (lambda step: 2.0 - step / 400, "healthy"),
    ],
)
def test_what_the_metrics_show_where_the_logs_say_nothing(cli: Cli, run_dir: Path, curve: Any, cause: str) -> None:
    finish(run_dir)
    train(run_dir, 400, "finished")
    found = "".join(json.dumps(line) + "\n" for line in lines(400, every=5, noise=0.01, loss=curve))
    (run_dir / "metrics.jsonl").write_text(found, encoding="utf-8")
    said = diagnosed(cli)
    assert (said["cause"], said["state"]) == (cause, "COMPLETED"), said
    assert bool(said["remedy"]) == (cause != "healthy")
    assert cli("diagnose", RUN).code == 0


@pytest.mark.parametrize("reason", ["JobHeldUser", "JobHeldAdmin", "job requeued in held state", "QOSNotAllowed"])
def test_what_somebody_has_to_let_go_waits_for_ever(run_dir: Path, reason: str) -> None:
    run = Run(run_dir, store.read_record(run_dir))
    waits = dataclasses.replace(status.look([run])[0], state=JobState.PENDING, why=explain_reason(reason))
    assert diagnose._waiting("r", waits).cause == "pending_for_ever"
    assert diagnose._waiting("r", dataclasses.replace(waits, why=explain_reason("Priority"))).cause == "waiting"
