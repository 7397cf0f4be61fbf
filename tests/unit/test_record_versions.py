"""Records of other versions and half-written ones: old ones are read, later ones explained, nothing is guessed."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from clusterctl.adapters import store
from clusterctl.errors import NotFound
from clusterctl.model import JobState, Resources
from clusterctl.record import Record
from clusterctl.runs import find, status
from clusterctl.runs.find import Run
from clusterctl.status import Progress

VERSION_1 = """\
{
 "run_id": "sft-20251103-a3f9", "name": "sft", "stage": "sft", "kind": "train", "recipe": "sft", "profile": "cpu",
 "scheduler": "local",
 "resources": {
  "nodes": 1, "gpus_per_node": 0, "gpu_type": null, "gpu_ids": [], "cpus_per_task": 1, "mem": "500M",
  "time_limit": 1200, "signal_lead": 30, "partition": null, "account": null, "qos": null, "constraint": null,
  "gpu_request": "gpus-per-node"
 },
 "fingerprint": "0a1b", "created_at": 1762170000.5, "user": "ann", "host": "login", "command": ["clusterctl", "submit"],
 "world_size": 1, "max_steps": 12, "num_train_epochs": 1.0, "full_time_limit": null, "after": [],
 "jobs": [{"token": "0123456789abcdef", "requested_at": 1762170001.5, "job_id": "L7"}],
 "schema": 1
}
"""
"""As the first version wrote it, all fields of its day."""

NEEDED = (
    "run_id", "name", "stage", "kind", "recipe", "profile", "scheduler", "resources", "fingerprint", "created_at",
    "user", "host", "command",
)  # fmt: skip


def write(root: Path, raw: dict[str, object]) -> Path:
    run_dir = root / "sft-20251103-a3f9"
    (run_dir / "logs").mkdir(parents=True, exist_ok=True)
    (run_dir / "record.json").write_text(json.dumps(raw), encoding="utf-8")
    return run_dir


def test_a_record_of_the_first_version_is_read_and_written_back_with_nothing_lost(tmp_path: Path) -> None:
    raw = json.loads(VERSION_1)
    run_dir = write(tmp_path, raw)
    record = store.read_record(run_dir)
    assert (record.job and record.job.job_id, record.resources.time_limit, record.max_steps) == ("L7", 1200, 12)
    store.write_record(run_dir, record)
    again = json.loads((run_dir / "record.json").read_text(encoding="utf-8"))
    assert {key: again[key] for key in raw if key != "resources"} == {k: v for k, v in raw.items() if k != "resources"}
    assert raw["resources"].items() <= again["resources"].items()


def test_fields_that_came_later_may_be_missing(tmp_path: Path) -> None:
    raw = json.loads(VERSION_1)
    run_dir = write(tmp_path, {key: raw[key] for key in NEEDED} | {"resources": {}})
    record = store.read_record(run_dir)
    assert (record.schema, record.jobs, record.resources) == (1, (), Resources())
    [now] = status.look([Run(run_dir, record)])
    assert (now.state, "clusterctl resume submits it" in now.why) == (JobState.UNKNOWN, True)


def test_a_record_of_a_later_version_is_explained_and_hides_no_other(tmp_path: Path) -> None:
    raw = json.loads(VERSION_1)
    write(tmp_path, raw | {"schema": 1, "invented_later": {"a": 1}})
    assert store.read_record(tmp_path / "sft-20251103-a3f9").name == "sft"
    other = tmp_path / "other"
    (other / "logs").mkdir(parents=True)
    (other / "record.json").write_text(json.dumps({"schema": 2, "id": "other"}), encoding="utf-8")
    runs, problems = find.every(tmp_path)
    assert [run.record.run_id for run in runs] == ["sft-20251103-a3f9"]
    assert problems == [
        "the record of other cannot be read: run_id is missing; a later version of clusterctl wrote it (schema 2)"
    ]
    with pytest.raises(NotFound, match="later version"):
        find.one(tmp_path, "other")


def test_attempts_and_progress_of_other_versions(tmp_path: Path) -> None:
    lines = [
        {"event": "begin", "attempt": 1, "job_id": "7", "time": 5},
        {"schema": 9, "event": "paused", "attempt": 1, "time": 6},
        {"schema": 9, "event": "end", "attempt": 1, "time": 7, "exit_code": "many", "outcome": 3, "later": []},
    ]
    text = "\n".join(map(json.dumps, lines)) + '\n{"schema": 1, "event": "beg'
    (tmp_path / "attempts.jsonl").write_text(text, encoding="utf-8")
    [attempt] = store.read_attempts(tmp_path)
    assert (attempt.job_id, attempt.host, attempt.ended_at, attempt.exit_code) == ("7", "", 7.0, None)
    (tmp_path / "progress.json").write_text(
        '{"schema": 9, "phase": "training", "step": "x", "new": 1}', encoding="utf-8"
    )
    assert store.read_progress(tmp_path) == Progress(phase="training")


def test_what_a_killed_submission_leaves_is_explained_once_it_is_old(tmp_path: Path) -> None:
    bare, begun, stray = (tmp_path / name for name in ("a-bare", "b-begun", "c-stray"))
    for folder in (bare, begun, stray):
        (folder / "logs").mkdir(parents=True)
    (begun / "run.yaml").touch()
    (begun / ".record.json.x1y2").touch()
    (stray / "logs/old.txt").touch()  # somebody's own folder
    assert find.every(tmp_path) == ([], [])  # they may still be on their way
    for folder in (bare, begun, stray):
        os.utime(folder, (time.time() - 300, time.time() - 300))
    _, problems = find.every(tmp_path)
    said = "has no record: its submission was cut short, and nothing was handed over"
    assert problems == [f"a-bare {said}", f"b-begun {said}"]
    with pytest.raises(NotFound) as caught:
        find.one(tmp_path, "b-begun")
    assert caught.value.hint and "rm -r" in caught.value.hint


def test_every_field_of_the_record_has_a_place_in_the_first_version_or_a_default() -> None:
    """Who adds a field without a default makes all old records unreadable."""
    raw = json.loads(VERSION_1)
    fields = Record.__dataclass_fields__
    assert {name for name in fields if name not in raw} <= {
        name for name, field in fields.items() if field.default is not field.default_factory
    }
    old = {key: raw[key] for key in NEEDED}
    assert asdict(Record(**{**old, "resources": Resources(), "command": ()}))["schema"] == 1
