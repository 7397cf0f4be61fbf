"""What the guard's history calls the end of an attempt, also of one that could not say a word."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from trainers.guard import begin, end, main
from trainers.runtime import checkpoints
from trainers.runtime.files import read_lines

JOB = "slurmstepd: error: *** JOB 12 ON gpu-a40-1 CANCELLED AT 2026-11-23T12:00:00"


@pytest.fixture
def run_dir(folder: Path) -> Path:
    path = folder / "run"
    (path / "logs").mkdir(parents=True)
    return path


def checkpoint(run_dir: Path, step: int) -> Path:
    path = run_dir / "checkpoints" / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "optimizer.pt").write_bytes(b"state")
    checkpoints.mark_complete(path, step)
    return path


def saved(run_dir: Path, step: int) -> None:
    """What a trainer leaves that was told to save and stop."""
    checkpoint(run_dir, step)
    (run_dir / "progress.json").write_text(json.dumps({"phase": "saved", "attempt": 1}), encoding="utf-8")


@pytest.mark.parametrize(
    ("log", "next_job", "cause"),
    [
        (f"{JOB} DUE TO JOB REQUEUE ***", "12", "requeued"),
        (f"{JOB} DUE TO PREEMPTION ***", "12", "preempted"),
        (f"{JOB} DUE TO TIME LIMIT ***", "12", "time_limit"),
        ("step 3/12  loss 0.7", "12", "node_failure"),  # Slurm began the job again, and nobody could say why
        ("step 3/12  loss 0.7", "13", "killed"),  # somebody resumed it
    ],
)
def test_the_next_attempt_finds_out_what_ended_a_silent_one(run_dir: Path, log: str, next_job: str, cause: str) -> None:
    begin(run_dir, "12")
    (run_dir / "logs/job.err").write_text(f"=== attempt 1 · job 12 · node ===\n{log}\n", encoding="utf-8")
    begin(run_dir, next_job)
    first, second = read_lines(run_dir / "attempts.jsonl")
    assert "before" not in first and second["before"]["cause"] == cause


def test_who_said_a_last_word_is_not_asked_again(run_dir: Path) -> None:
    begin(run_dir, "12")
    saved(run_dir, 5)
    end(run_dir, 85, "USR1")
    begin(run_dir, "12")
    assert "before" not in read_lines(run_dir / "attempts.jsonl")[-1]


@pytest.mark.parametrize(
    ("asked", "log", "cause"),
    [
        ("USR1", "", "time_limit"),
        ("PREEMPTED", "", "preempted"),
        ("TERM", "", "stopped"),
        ("", "", "stopped"),  # the file `stop`
        ("TERM", f"{JOB} DUE TO JOB REQUEUE ***\n", "requeued"),
        ("TERM", f"{JOB} ***\n", "cancelled"),
    ],
)
def test_a_run_that_saved_says_why(run_dir: Path, asked: str, log: str, cause: str) -> None:
    begin(run_dir, "12")
    (run_dir / "logs/job.err").write_text(log, encoding="utf-8")
    saved(run_dir, 5)
    end(run_dir, 85, asked)
    assert read_lines(run_dir / "attempts.jsonl")[-1]["cause"] == cause


def test_clusterctl_cancel_is_told_from_a_mere_term(run_dir: Path) -> None:
    begin(run_dir, "12")
    saved(run_dir, 5)
    (run_dir / "cancelled.json").write_text("{}", encoding="utf-8")
    assert end(run_dir, 85, "TERM")[0] == 143
    assert read_lines(run_dir / "attempts.jsonl")[-1]["cause"] == "cancelled"


def test_told_to_end_before_it_could_listen(run_dir: Path) -> None:
    begin(run_dir, "12")
    words = "srun: error: gpu-a40-1: task 0: Terminated\n"
    (run_dir / "logs/job.err").write_text(words, encoding="utf-8")
    (run_dir / "cancelled.json").write_text("{}", encoding="utf-8")
    end(run_dir, 143, "TERM")
    assert read_lines(run_dir / "attempts.jsonl")[-1]["cause"] == "cancelled"


def test_a_checkpoint_whose_files_are_cut_does_not_count(run_dir: Path) -> None:
    checkpoint(run_dir, 5)
    cut = checkpoint(run_dir, 10)
    checkpoints.mark_complete(cut, 10)  # a second time, as verl's are: the mark is no file of the checkpoint
    assert checkpoints.newest_step(run_dir) == 10
    os.truncate(cut / "optimizer.pt", 2)
    assert checkpoints.newest_step(run_dir) == 5
    begin(run_dir, "12")
    [line] = read_lines(run_dir / "attempts.jsonl")
    assert (line["checkpoint"], line["torn"]) == (5, ["checkpoint-10"])
    (cut / "optimizer.pt").unlink()
    assert checkpoints.torn(run_dir) == ["checkpoint-10"]


def test_the_mark_of_an_older_version_is_believed(run_dir: Path) -> None:
    old = checkpoint(run_dir, 5)
    (old / checkpoints.MARK).write_text('{"schema": 1, "step": 5}', encoding="utf-8")
    assert checkpoints.newest_step(run_dir) == 5


def test_where_nothing_can_be_noted_it_says_so(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run_dir / "attempts.jsonl").mkdir()
    for arguments in (["begin", str(run_dir)], ["end", str(run_dir), "1", ""]):
        assert main(arguments) == 1
        said = capsys.readouterr().err
        assert "attempts.jsonl: Is a directory\nhint: make room" in said and "Traceback" not in said
