"""``prune``: what goes by rule, what never goes, and that nothing goes unseen."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from clusterctl.adapters import store
from clusterctl.model import Resources
from clusterctl.record import JobEntry, Record
from clusterctl.runs import status
from tests.project import Answer
from tests.unit.conftest import Mounted
from trainers.runtime import checkpoints

Cli = Callable[..., Answer]


def made(root: Path, run_id: str, *, decision: str = "done", steps: tuple[int, ...] = (10, 20, 30), days: float = 0.0,
         model: str = "Qwen/Qwen3-8B", best: int | None = None) -> Path:  # fmt: skip
    """A run as it lies on disk after its end; ``decision`` empty: one that was begun in the foreground."""
    run_dir = store.make_run_dir(root, run_id)
    record = Record(
        run_id=run_id, name="sft", stage="sft", kind="train", recipe="sft", profile="cpu", scheduler="local",
        resources=Resources(), fingerprint="f", created_at=time.time(), user="u", host="h", command=(),
        jobs=(JobEntry("token", time.time() - 10 - days * 86400, "L7"),) if decision else (),
    )  # fmt: skip
    store.write_record(run_dir, record)
    when = time.time() - days * 86400
    lines = [{"event": "begin", "attempt": 1, "job_id": "L7", "host": "n", "time": when - 5}]
    if decision:
        code, outcome = (0, "finished") if decision == "done" else (1, "failed")
        lines.append({"event": "end", "attempt": 1, "time": when, "exit_code": code, "decision": decision,
                      "outcome": outcome, "why": "x"})  # fmt: skip
    (run_dir / "attempts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    metric = "eval: {eval_steps: 10, metric_for_best_model: eval_loss}" if best else "eval: {}"
    (run_dir / "run.yaml").write_text(f"model: {{model_name_or_path: {model}}}\n{metric}\n", encoding="utf-8")
    with (run_dir / "metrics.jsonl").open("w", encoding="utf-8") as f:
        for step in steps:
            loss = 0.5 if step == best else 1.0
            f.write(json.dumps({"attempt": 1, "step": step, "eval_loss": loss}) + "\n")
    for step in steps:
        path = run_dir / "checkpoints" / f"checkpoint-{step}"
        path.mkdir(parents=True)
        (path / "optimizer.pt").write_bytes(b"x" * 4096)
        checkpoints.mark_complete(path, step)
    return run_dir


def left(run_dir: Path) -> list[str]:
    return sorted(path.name for path in (run_dir / "checkpoints").iterdir())


@pytest.fixture
def root(folder: Path) -> Path:
    return folder / "logs"


def test_newest_best_and_living_stay(root: Path, cli: Cli, tmp_path: Path) -> None:
    ended, best = made(root, "a-1"), made(root, "b-1", best=10)
    living = made(root, "c-1", decision="")
    torn = ended / "checkpoints" / "checkpoint-40"
    torn.mkdir()
    (torn / "half").write_bytes(b"y" * 100)
    (ended / "checkpoints" / "checkpoint-5").symlink_to(tmp_path)

    looked = cli("prune", "--dry-run")
    assert looked.code == 0 and "torn checkpoint" in looked.out and "would be freed" in looked.out
    refused = cli("prune")
    assert refused.code == 2 and "--yes" in refused.err
    assert left(ended) == ["checkpoint-10", "checkpoint-20", "checkpoint-30", "checkpoint-40", "checkpoint-5"]

    with (living / status.FOREGROUND_LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as long as it is held, the run runs
        answer = cli("prune", "--yes", "--json")
    assert answer.code == 0, answer.err
    assert left(ended) == ["checkpoint-30", "checkpoint-5"]
    assert tmp_path.is_dir() and left(best) == ["checkpoint-10", "checkpoint-30"]
    assert left(living) == ["checkpoint-10", "checkpoint-20", "checkpoint-30"]
    assert [one["run_id"] for one in answer.json["data"]["kept"]] == ["c-1"]
    assert "nothing to remove" in cli("prune", "a-1", "b-1", "--dry-run").out


def test_whole_runs_go_by_age_unless_another_starts_from_them(root: Path, cli: Cli) -> None:
    old, parent, young = made(root, "a-1", days=100), made(root, "b-1", days=100), made(root, "c-1", days=1)
    made(root, "d-1", days=1, model=json.dumps(str((parent / "final_model").absolute())))
    assert cli("prune", "--whole-runs", "--yes").code == 2
    assert cli("prune", "--whole-runs", "--older-than", "soon", "--yes").code == 2
    answer = cli("prune", "--whole-runs", "--older-than", "90d", "--yes")
    assert answer.code == 0, answer.err
    assert not old.exists() and parent.exists() and young.exists()
    assert "d-1 starts from it" in answer.out


def test_the_folder_of_a_sweep_goes_with_the_last_of_its_runs(root: Path, cli: Cli) -> None:
    for name, days in (("a-1-0", 100), ("a-1-1", 2)):
        record = made(root, name, days=days) / "record.json"
        text = record.read_text(encoding="utf-8").replace('"sweep": ""', '"sweep": "a-1"')
        record.write_text(text, encoding="utf-8")
    (root / "a-1" / "places").mkdir(parents=True)
    for age, stays in (("90d", True), ("1d", False)):
        assert cli("prune", "--whole-runs", "--older-than", age, "--yes").code == 0
        assert [(root / "a-1").exists(), (root / "a-1-0").exists(), (root / "a-1-1").exists()] == [stays, False, stays]


def test_what_others_start_from_stays_also_where_only_one_run_is_named(root: Path, cli: Cli) -> None:
    parent = made(root, "a-1", days=100)
    early = json.dumps(str((parent / "checkpoints" / "checkpoint-10").absolute()))
    made(root, "b-1", days=1, model=early)
    answer = cli("prune", "a-1", "--yes")
    assert "b-1 starts from checkpoint-10" in answer.out
    assert left(parent) == ["checkpoint-10", "checkpoint-30"]
    answer = cli("prune", "a-1", "--whole-runs", "--older-than", "90d", "--yes")
    assert "b-1 starts from it" in answer.out and left(parent) == ["checkpoint-10", "checkpoint-30"]


def test_what_cannot_be_removed_is_said_and_the_rest_is_left(root: Path, cli: Cli, mounted: Mounted) -> None:
    run_dir = made(root, "a-1", decision="stop")
    busy = run_dir / "checkpoints" / "checkpoint-20"
    mounted("size=1m", busy / "mounted")
    answer = cli("prune", "a-1", "--yes")
    assert (answer.code, "cannot be removed" in answer.err, str(busy) in answer.err) == (3, True, True)
    assert left(run_dir) == ["checkpoint-20", "checkpoint-30"]
    assert cli("prune", "no-such-run", "--yes").code == 6


def test_what_is_linked_or_named_by_an_old_path_or_by_a_run_of_a_later_version_stays(root: Path, cli: Cli) -> None:
    parent = made(root, "a-1", days=100)
    (parent / "good").symlink_to("checkpoints/checkpoint-10")
    child = made(root, "b-1", days=1, model="/old/home/logs/a-1/checkpoints/checkpoint-20/adapter")
    (child / store.RECORD).write_text('{"schema": 9}', encoding="utf-8")
    answer = cli("prune", "--yes")
    assert answer.code == 0 and "b-1 starts from checkpoint-20" in answer.out, answer
    assert left(parent) == ["checkpoint-10", "checkpoint-20", "checkpoint-30"]
    assert "b-1 starts from it" in cli("prune", "--whole-runs", "--older-than", "90d", "--yes").out and parent.exists()
