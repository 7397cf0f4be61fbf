"""Status is derived from evidence: what lies in the run directory, and a scheduler that may have forgotten."""

from __future__ import annotations

import fcntl
import json
import time
from pathlib import Path

import pytest
from rich.console import Console

from clusterctl.adapters import store
from clusterctl.errors import NotFound, UsageProblem
from clusterctl.model import JobState, Resources
from clusterctl.record import JobEntry, Record
from clusterctl.runs import find, status
from clusterctl.status import Level, Status
from clusterctl.views import status_table

NOW = time.time()


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def make(root: Path, run_id: str = "sft-20261123-aaaa", job_id: str | None = "L7", **changes: object) -> find.Run:
    run_dir = store.make_run_dir(root, run_id)
    values: dict[str, object] = {
        "name": "sft",
        "stage": "sft",
        "kind": "train",
        "recipe": "sft",
        "profile": "cpu",
        "scheduler": "local",
        "resources": Resources(time_limit=3600),
        "fingerprint": "f",
        "created_at": NOW,
        "user": "u",
        "host": "h",
        "command": (),
        "jobs": (JobEntry("token", time.time() - 10, job_id),),
        **changes,
    }
    record = Record(run_id=run_id, **values)  # type: ignore[arg-type]
    store.write_record(run_dir, record)
    return find.Run(run_dir, record)


def begin(run: find.Run, number: int = 1, job_id: str = "L7") -> None:
    note(run, {"event": "begin", "attempt": number, "job_id": job_id, "host": "n1", "time": NOW - 5})


def end(run: find.Run, code: int, decision: str, outcome: str, why: str = "", number: int = 1) -> None:
    words = {"exit_code": code, "decision": decision, "outcome": outcome, "why": why}
    note(run, {"event": "end", "attempt": number, "time": NOW, **words})


def note(run: find.Run, line: dict[str, object]) -> None:
    with (run.run_dir / "attempts.jsonl").open("a", encoding="utf-8") as f:
        f.write(json.dumps({"schema": 1, **line}) + "\n")


def progress(run: find.Run, **values: object) -> None:
    (run.run_dir / "progress.json").write_text(json.dumps({"schema": 1, **values}), encoding="utf-8")


def look(run: find.Run) -> Status:
    [now] = status.look([run])
    return now


def test_a_record_reads_back_as_it_was(tmp_path: Path) -> None:
    run = make(tmp_path, resources=Resources(gpu_type="a800", gpu_ids=("0", "1")), command=("a'b", "狼"))
    assert store.read_record(run.run_dir) == run.record


def test_later_versions_and_torn_records(tmp_path: Path) -> None:
    run = make(tmp_path)
    path = run.run_dir / "record.json"
    raw = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**raw, "schema": 9, "new_field": 1}), encoding="utf-8")
    assert store.read_record(run.run_dir).run_id == run.record.run_id
    path.write_text(path.read_text(encoding="utf-8")[:50], encoding="utf-8")
    with pytest.raises(NotFound, match="cannot be read"):
        store.read_record(run.run_dir)
    runs, problems = find.every(tmp_path)
    assert runs == []
    assert len(problems) == 1


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"created_at": None}, "created_at is null"),
        ({"created_at": float("nan")}, "created_at is NaN"),
        ({"run_id": 5}, "run_id is 5"),
        ({"scheduler": "pbs"}, 'scheduler is "pbs"'),
        ({"max_steps": True}, "max_steps is true"),
        ({"after": "a"}, 'after is "a"'),
        ({"after": [None]}, "after is null"),
        ({"jobs": [5]}, "no JobEntry, but 5"),
        ({"jobs": [{"token": "t", "requested_at": "now"}]}, 'requested_at is "now"'),
        ({"jobs": [{"token": "t"}]}, "requested_at is missing"),
        ({"resources": None}, "no Resources, but null"),
    ],
)
def test_a_record_with_a_wrong_type_is_a_problem_beside_the_others(
    tmp_path: Path, changes: dict[str, object], why: str
) -> None:
    good, bad = make(tmp_path), make(tmp_path, "bad")
    path = bad.run_dir / "record.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")
    assert find.every(tmp_path) == ([good], [f"the record of bad cannot be read: {why}"])


def test_the_jobs_own_last_words_count_where_the_scheduler_forgot(tmp_path: Path) -> None:
    run = make(tmp_path)
    assert look(run).state is JobState.UNKNOWN
    begin(run)
    assert look(run).state is JobState.UNKNOWN
    end(run, 1, "stop", "failed", "no space left on device")
    now = look(run)
    assert (now.state, now.why, now.where) == (JobState.FAILED, "no space left on device", "n1")
    begin(run, 2)
    assert look(run).state is JobState.UNKNOWN
    end(run, 0, "done", "finished", number=2)
    now = look(run)
    assert (now.state, now.attempts) == (JobState.COMPLETED, 2)


def test_an_end_of_an_older_job_says_nothing_about_the_new_one(tmp_path: Path) -> None:
    run = make(tmp_path, jobs=(JobEntry("token", NOW + 10, "L8"),))
    begin(run, job_id="L7")
    end(run, 0, "done", "finished")
    assert look(run).state is JobState.UNKNOWN


def test_a_requeue_is_not_an_end(tmp_path: Path) -> None:
    run = make(tmp_path)
    begin(run)
    end(run, 85, "requeue", "saved")
    assert look(run).state is JobState.UNKNOWN


def test_exit_code_zero_without_done_is_no_success(tmp_path: Path) -> None:
    run = make(tmp_path)
    begin(run)
    end(run, 0, "stop", "failed", "the trainer did not say why")
    assert look(run).state is JobState.FAILED


def test_a_cancellation_is_remembered(tmp_path: Path) -> None:
    run = make(tmp_path)
    (run.run_dir / "cancelled.json").write_text("{}", encoding="utf-8")
    assert look(run).state is JobState.CANCELLED
    begin(run)
    end(run, 143, "stop", "saved")
    assert look(run).state is JobState.CANCELLED


def test_an_unconfirmed_hand_over_is_unknown_but_safe_to_repeat(tmp_path: Path) -> None:
    fresh = make(tmp_path, job_id=None)
    assert (look(fresh).state, look(fresh).gone) == (JobState.UNKNOWN, False)
    old = make(tmp_path, "old", jobs=(JobEntry("token", NOW - 1000),))
    now = look(old)
    assert (now.state, now.gone, "resume" in now.why) == (JobState.UNKNOWN, True, True)
    begin(old)
    assert "not confirmed" not in look(old).why, "an attempt has begun: it did arrive"
    assert store.read_record(old.run_dir).jobs[-1].job_id == "L7"
    end(old, 0, "done", "finished")
    assert look(old).state is JobState.COMPLETED


def test_a_run_that_was_never_handed_over_is_no_failure(tmp_path: Path) -> None:
    now = look(make(tmp_path, jobs=()))
    assert (now.state, now.gone, "never handed over" in now.why) == (JobState.UNKNOWN, True, True)


def test_finished_by_hand_is_finished(tmp_path: Path) -> None:
    run = make(tmp_path)
    (run.run_dir / "cancelled.json").write_text("{}", encoding="utf-8")
    begin(run, job_id="")
    note(run, {"event": "begin", "attempt": 2, "job_id": "", "host": "n1", "time": time.time() + 1})
    end(run, 0, "done", "finished", number=2)
    assert look(run).state is JobState.COMPLETED


def test_a_new_attempt_does_not_speak_with_the_old_ones_words(tmp_path: Path) -> None:
    run = make(tmp_path)
    begin(run, 1)
    progress(run, phase="saved", attempt=1, step=7, max_steps=9, seconds_per_step=5.0, updated_at=NOW - 500)
    end(run, 85, "requeue", "saved")
    begin(run, 2)
    now = look(run)
    assert (now.progress.step, now.progress.phase, now.progress.updated_at) == (7, "", None)


def test_a_foreground_run_lives_as_long_as_its_lock(tmp_path: Path) -> None:
    run = make(tmp_path, jobs=())
    with (run.run_dir / "foreground.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert look(run).state is JobState.RUNNING
    assert look(run).state is JobState.FAILED
    begin(run, job_id="")
    end(run, 0, "done", "finished")
    assert look(run).state is JobState.COMPLETED


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"step": "x", "loss": NaN, "phase": 3}',
        '{"step": true, "error": []}',
        '{"step": 1e999, "max_steps": -Infinity, "attempt": 1, "event": "begin", "time": 1e999}',
        '{"loss": 1' + "0" * 400 + "}",
        "[" * 100_000,
    ],
)
def test_torn_files_of_the_trainer_never_break_a_look(tmp_path: Path, text: str) -> None:
    run = make(tmp_path)
    for name in ("progress.json", "attempts.jsonl", "training_metrics.json"):
        (run.run_dir / name).write_text(text, encoding="utf-8")
    assert look(run).state is JobState.UNKNOWN


def test_find_by_id_beginning_job_and_last(tmp_path: Path) -> None:
    one = make(tmp_path, "sft-20261123-aaaa", job_id="12")
    two = make(tmp_path, "sft-20261123-abbb", job_id="13", created_at=NOW + 1)
    assert find.one(tmp_path, "sft-20261123-aaaa") == one
    assert find.one(tmp_path, "sft-20261123-ab") == two
    assert find.one(tmp_path, "12") == one
    assert find.one(tmp_path, "last") == two
    assert find.one(tmp_path, str(two.run_dir)).record == two.record
    with pytest.raises(UsageProblem, match="begins 2 runs"):
        find.one(tmp_path, "sft")
    for text in ("nothing", "", "..", "/", "sft-20261123-aaab"):
        with pytest.raises((NotFound, UsageProblem)):
            find.one(tmp_path, text)


def learn(run: find.Run, *losses: float) -> None:
    """Lines of metrics every 10 steps of 2 s, with an evaluation of 30 s after each 100."""
    lines = [
        {"attempt": 1, "step": 10 * n, "time": NOW + 20 * n + 30 * (n // 10), "loss": loss, "grad_norm": 1.0}
        for n, loss in enumerate(losses, start=1)
    ]
    (run.run_dir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    progress(run, phase="training", attempt=1, step=10 * len(losses), max_steps=1000, seconds_per_step=2.0)


def test_the_health_and_the_time_left_come_from_the_metrics(tmp_path: Path) -> None:
    run = make(tmp_path, jobs=())
    begin(run, job_id="")
    with (run.run_dir / "foreground.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        learn(run, 2.0)
        now = look(run)
        assert now.health and now.health.level is Level.EARLY
        assert now.eta_seconds == 990 * 2.0
        assert "early" not in _row(now)
        learn(run, *(2.0 - n / 100 for n in range(50)))
        now = look(run)
        # By the clock from step 10 to 500: its steps, and the five evaluations.
        assert now.eta_seconds == pytest.approx(500 * (490 * 2.0 + 5 * 30) / 490)
        assert _row(now).endswith("in the foreground of a terminal; healthy")
        learn(run, *(2.0 + n / 20 for n in range(50)))
        assert "; in trouble: the loss rises: 2.38 -> 4.08 in 490 steps" in _row(look(run))


def _row(now: Status) -> str:
    console = Console(width=400, no_color=True)
    with console.capture() as text:
        console.print(status_table.view([now], [], root=Path("x"), detailed=False))
    return text.get().splitlines()[1].rstrip()


def test_the_sentence_and_the_row_show_what_is_known(tmp_path: Path) -> None:
    run = make(tmp_path)
    begin(run)
    progress(run, phase="finished", attempt=1, step=48, max_steps=48, loss=0.8612345)
    end(run, 0, "done", "finished")
    assert status_table.sentence(look(run)) == "sft-20261123-aaaa COMPLETED on n1, step 48/48, loss 0.8612: finished"
