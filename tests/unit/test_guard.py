"""The crash-loop guard: what it notes, and when a run goes on by itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.conftest import ROOT
from trainers.guard import begin, end
from trainers.runtime import checkpoints
from trainers.runtime.files import append_line, read_lines


@pytest.fixture
def run_dir(folder: Path) -> Path:
    path = folder / "run"
    path.mkdir()
    return path


def checkpoint(run_dir: Path, step: int, *, whole: bool = True) -> Path:
    path = run_dir / "checkpoints" / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "optimizer.pt").write_bytes(b"state")
    if whole:
        checkpoints.mark_complete(path, step)
    return path


def say(run_dir: Path, phase: str, attempt: int = 1, error: str | None = None) -> None:
    value = {"schema": 1, "phase": phase, "attempt": attempt, "error": error}
    (run_dir / "progress.json").write_text(json.dumps(value), encoding="utf-8")


def lines(run_dir: Path) -> list[dict[str, Any]]:
    return read_lines(run_dir / "attempts.jsonl")


def test_begin_counts_and_clears_the_stop_file(run_dir: Path) -> None:
    (run_dir / "stop").touch()
    checkpoint(run_dir, 20)
    assert begin(run_dir, "12") == 1
    assert begin(run_dir, "12") == 2
    assert not (run_dir / "stop").exists()
    first = lines(run_dir)[0]
    assert (first["event"], first["attempt"], first["job_id"], first["checkpoint"]) == ("begin", 1, "12", 20)
    assert first["schema"] == 1 and first["host"]


def test_only_complete_checkpoints_count(run_dir: Path) -> None:
    assert checkpoints.newest_step(run_dir) is None
    checkpoint(run_dir, 9)
    checkpoint(run_dir, 10)
    checkpoint(run_dir, 30, whole=False)
    (run_dir / "checkpoints" / "checkpoint-x").mkdir()
    assert checkpoints.newest_step(run_dir) == 10
    assert [step for step, _ in checkpoints.complete(run_dir)] == [9, 10]


def test_rotation_keeps_the_newest_complete_ones(run_dir: Path) -> None:
    for step in (5, 10, 100):
        checkpoint(run_dir, step)
    checkpoint(run_dir, 7, whole=False)
    checkpoints.rotate(run_dir, None)
    assert [step for step, _ in checkpoints.complete(run_dir)] == [5, 10, 100]
    checkpoints.rotate(run_dir, 2)
    assert sorted(path.name for path in (run_dir / "checkpoints").iterdir()) == ["checkpoint-10", "checkpoint-100"]


def test_finished_is_done_whatever_the_launcher_says(run_dir: Path) -> None:
    begin(run_dir, "1")
    say(run_dir, "finished")
    assert end(run_dir, 1, "")[0] == 0
    assert (lines(run_dir)[-1]["outcome"], lines(run_dir)[-1]["decision"]) == ("finished", "done")


def test_saved_before_the_time_limit_goes_on(run_dir: Path) -> None:
    checkpoint(run_dir, 20)
    begin(run_dir, "1")
    checkpoint(run_dir, 31)
    say(run_dir, "saved")
    # torchrun turns the workers' 85 into 1.
    assert end(run_dir, 1, "USR1") == (85, "saved at step 31, to be continued")
    assert (lines(run_dir)[-1]["outcome"], lines(run_dir)[-1]["decision"]) == ("saved", "requeue")


def test_saved_without_progress_does_not_go_on(run_dir: Path) -> None:
    checkpoint(run_dir, 20)
    begin(run_dir, "1")
    say(run_dir, "saved")
    code, why = end(run_dir, 85, "USR1")
    assert code not in (0, 85)
    assert "anything new" in why


def test_a_cancelled_run_is_not_continued(run_dir: Path) -> None:
    begin(run_dir, "1")
    checkpoint(run_dir, 3)
    say(run_dir, "saved")
    code, _ = end(run_dir, 85, "TERM")
    assert code not in (0, 85)
    assert lines(run_dir)[-1]["decision"] == "stop"


@pytest.mark.parametrize(("code", "answer"), [(1, 1), (2, 2), (137, 137), (0, 1), (85, 1)])
def test_a_failure_is_never_success_nor_a_requeue(run_dir: Path, code: int, answer: int) -> None:
    begin(run_dir, "1")
    checkpoint(run_dir, 3)
    say(run_dir, "training")
    assert end(run_dir, code, "USR1")[0] == answer
    assert lines(run_dir)[-1]["outcome"] == "failed"


def test_words_of_an_earlier_attempt_are_not_ours(run_dir: Path) -> None:
    begin(run_dir, "1")
    say(run_dir, "finished", attempt=1)
    begin(run_dir, "1")
    assert end(run_dir, 137, "")[0] == 137
    assert "exit code 137" in lines(run_dir)[-1]["why"]
    say(run_dir, "failed", attempt=2, error="the run has diverged")
    assert end(run_dir, 1, "")[1] == "the run has diverged"


def test_three_fruitless_attempts_of_a_job_are_enough(run_dir: Path) -> None:
    checkpoint(run_dir, 5)
    assert [begin(run_dir, "1") for _ in range(4)] == [1, 2, 3, None]
    # A person resumed it, as another job or by hand.
    assert begin(run_dir, "2") == 4
    assert [begin(run_dir, "") for _ in range(4)] == [5, 6, 7, 8]
    # Progress counts from the third last attempt on.
    assert begin(run_dir, "2") == 9
    assert begin(run_dir, "2") == 10
    checkpoint(run_dir, 6)
    assert begin(run_dir, "2") == 11


def test_a_torn_line_hides_neither_itself_nor_the_next(run_dir: Path) -> None:
    begin(run_dir, "1")
    with (run_dir / "attempts.jsonl").open("ab") as file:
        file.write(b'{"event": "beg')
    assert begin(run_dir, "1") == 2
    assert [line["attempt"] for line in lines(run_dir)] == [1, 2]
    append_line(run_dir / "attempts.jsonl", {"ü": "狼"})
    assert lines(run_dir)[-1] == {"ü": "狼"}


def test_as_a_program(run_dir: Path, home: dict[str, str]) -> None:
    def guard(*words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "trainers.guard", *words]
        env = {**home, "PYTHONPATH": str(ROOT), "CLUSTERCTL_JOB_ID": "L1"}
        return subprocess.run(argv, env=env, capture_output=True, text=True, check=False)

    assert [guard("begin", str(run_dir)).stdout for _ in range(3)] == ["1\n", "2\n", "3\n"]
    refused = guard("begin", str(run_dir))
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert refused.stderr.splitlines()[1].startswith("hint: ")
    say(run_dir, "finished", attempt=3)
    ended = guard("end", str(run_dir), "0", "")
    assert (ended.returncode, ended.stdout) == (0, "guard: training finished\n")
    assert guard("end", str(run_dir)).returncode == 2
