"""What a job tries again by itself after a failure, decided from what lies in its directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.test_guard import checkpoint, lines
from trainers.guard import SAVED, begin, end

PORT = "RuntimeError: The server socket has failed to listen. port: 29500, code: -98, name: EADDRINUSE"
ECHO = "[rank0]:[E1123] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7)"
ECC = "torch.AcceleratorError: CUDA error: uncorrectable ECC error encountered"
OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."


@pytest.fixture
def run_dir(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = folder / "run"
    (path / "logs").mkdir(parents=True)
    monkeypatch.setenv("SLURMD_NODENAME", "n7")
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "1")
    return path


def fails(run_dir: Path, words: str, *, job: str = "12", asked: str = "", step: int | None = None) -> bool:
    """Begin an attempt that writes this into its log and fails; whether the job goes on."""
    begin(run_dir, job)
    if step is not None:
        checkpoint(run_dir, step)
    (run_dir / "logs/job.err").write_text(f"{words}\n", encoding="utf-8")
    return end(run_dir, 1, asked)[0] == SAVED


@pytest.mark.parametrize(("words", "cause", "tries"), [(PORT, "port_in_use", 2), (OOM, "cuda_out_of_memory", 0)])
def test_what_may_pass_is_tried_twice_and_what_would_fail_again_never(
    run_dir: Path, words: str, cause: str, tries: int
) -> None:
    assert [fails(run_dir, words) for _ in range(tries + 1)] == [True] * tries + [False]
    assert lines(run_dir)[-1]["cause"] == cause


def test_where_only_an_echo_is_known_it_is_tried_once(run_dir: Path) -> None:
    assert [fails(run_dir, ECHO), fails(run_dir, ECHO)] == [True, False]


def test_a_new_job_of_the_run_may_try_anew(run_dir: Path) -> None:
    assert [fails(run_dir, PORT), fails(run_dir, PORT), fails(run_dir, PORT)] == [True, True, False]
    assert fails(run_dir, PORT, job="13")


def test_with_progress_it_goes_on_more_often(run_dir: Path) -> None:
    assert all(fails(run_dir, ECC, step=step) for step in (10, 20, 30, 40))
    assert [fails(run_dir, ECC) for _ in range(2)] == [False, False]


def test_the_node_is_noted_only_where_it_is_known_which_one_it_was(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fails(run_dir, PORT) and not (run_dir / "bad_nodes").exists()
    assert fails(run_dir, ECC)
    assert (run_dir / "bad_nodes").read_text(encoding="utf-8") == "n7\n"
    assert "not on n7" in lines(run_dir)[-1]["why"]
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "2")
    monkeypatch.setenv("SLURMD_NODENAME", "n8")
    assert fails(run_dir, ECC, step=10)
    assert (run_dir / "bad_nodes").read_text(encoding="utf-8") == "n7\n"


@pytest.mark.parametrize("asked", ["TERM", "INT"])
def test_what_somebody_stopped_stays_stopped(run_dir: Path, asked: str) -> None:
    assert not fails(run_dir, PORT, asked=asked)


def test_by_hand_nothing_is_tried_again(run_dir: Path) -> None:
    assert not fails(run_dir, PORT, job="")


def test_an_attempt_without_a_last_word_gets_its_cause_at_the_next(run_dir: Path) -> None:
    begin(run_dir, "12")
    begin(run_dir, "12")
    assert lines(run_dir)[-1]["before"]["cause"] == "node_failure"
    (run_dir / "logs/job.err").write_text("slurmstepd: error: *** JOB 12 CANCELLED DUE TO PREEMPTION ***\n")
    begin(run_dir, "12")
    assert lines(run_dir)[-1]["before"]["cause"] == "preempted"
    (run_dir / "logs/job.err").unlink()
    begin(run_dir, "13")
    assert lines(run_dir)[-1]["before"]["cause"] != "node_failure"
