"""The changes that a job may make to itself out of memory, and how the guard takes them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from clusterctl.errors import Unavailable, UsageProblem
from clusterctl.plan.ladder import ladder
from clusterctl.runs import aftercare, find
from tests.unit.test_guard import checkpoint, lines, say
from tests.unit.test_sweep import write
from trainers import fixes
from trainers.config import RunConfig, load, parse
from trainers.guard import begin, end
from trainers.runtime.files import read_lines

OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."
GPU = {"device": "cuda", "strategy": "zero2", "launcher": "torchrun", "processes_per_node": 2}


def config(stage: str = "sft", **more: Any) -> RunConfig:
    method = {"grpo": {"reward_functions": ["a.py:b"], "num_generations": 4}}.get(stage, {})
    return parse(
        {
            "stage": stage,
            "model": {"model_name_or_path": "tiny"},
            "data": {"train_files": ["a.csv"]},
            "optim": {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2},
            "parallel": GPU,
            "method": method,
            **more,
        }
    )


def rows(one: RunConfig) -> int:
    optim = one.optim
    return optim.per_device_train_batch_size * optim.gradient_accumulation_steps * one.parallel.world_size


def test_every_rung_keeps_the_rows_of_a_step_and_cuts_rows_only_where_it_may() -> None:
    before = config()
    rungs = ladder(before, shorter=False, host_has_room=lambda _: True)
    assert [rung.words for rung in rungs] == [
        "4 rows at once",
        "2 rows at once",
        "1 row at once",
        "gradient checkpointing",
        "optimiser states in host memory",
    ]
    assert {rows(rung.config) for rung in rungs} == {rows(before)}
    assert {rung.config.data.max_length for rung in rungs} == {before.data.max_length}
    assert [rung.resumes for rung in rungs] == [True] * 4 + [False]
    last = rungs[-1].config
    assert (last.model.gradient_checkpointing, last.optim.per_device_eval_batch_size) == (True, 1)
    shorter = ladder(before, shorter=True, host_has_room=lambda _: False)
    assert shorter[-1].config.data.max_length == before.data.max_length // 2
    assert {rung.config.parallel.offload for rung in shorter} == {"none"}  # no room on the host


def test_batches_only_shrink() -> None:
    split = config(optim={"per_device_train_batch_size": 6, "gradient_accumulation_steps": 1})
    rungs = ladder(split, shorter=False, host_has_room=lambda _: False)
    assert [rung.config.optim.per_device_train_batch_size for rung in rungs] == [3, 2, 1, 1]


@pytest.fixture
def ended(folder: Path) -> find.Run:
    """A run that is resumed with a change."""
    run_dir = write(folder, "sft-20261123-a3f9", 1.0)
    (folder / "a.csv").touch()
    values = config().model_dump(mode="json")
    del values["optim"]["train_batch_size"]  # as an older version wrote it
    values["data"]["train_files"] = [str(folder / "a.csv")]
    (run_dir / "run.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    return find.one(folder, "last")


@pytest.mark.parametrize("key", ["optim.per_device_train_batch_size", "batch_size"])
def test_a_smaller_batch_by_hand_keeps_the_rows_of_a_step(ended: find.Run, key: str) -> None:
    with pytest.raises(UsageProblem):
        aftercare.change(ended, ["parallel=1", f"{key}=4"])
    aftercare.change(ended, [f"{key}=4"])
    changed = load(ended.run_dir / "run.yaml")
    assert (changed.optim.per_device_train_batch_size, rows(changed)) == (4, rows(config()))


def test_of_a_section_said_by_hand_the_other_keys_stay(
    ended: find.Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (folder / "b.csv").touch()
    before = load(ended.run_dir / "run.yaml")
    aftercare.change(ended, ["optim={max_steps: 77}", "data.train_files=b.csv"])
    after = load(ended.run_dir / "run.yaml")
    assert after.optim == before.optim.model_copy(update={"max_steps": 77})
    assert after.data.train_files == [str(folder / "b.csv")]  # the job runs elsewhere
    for wrong in ("optim={optim: sgd}", "data.train_files=c.csv"):
        with pytest.raises(UsageProblem):
            aftercare.change(ended, [wrong])


@pytest.mark.parametrize("queued", [False, True])
def test_a_refused_hand_over_leaves_the_run_as_it_was(ended: find.Run, queued: bool) -> None:
    run = replace(ended, record=replace(ended.record, auto_fix=("oom",)))
    (run.run_dir / "rungs").mkdir()
    files = ("run.yaml", "fixes.jsonl", "rungs/rungs.json")
    for name in files[1:]:
        (run.run_dir / name).write_text("before", encoding="utf-8")
    before = [(run.run_dir / name).read_text(encoding="utf-8") for name in files]
    with pytest.raises(Unavailable), aftercare.changed(run, ["optim.max_steps=77"]):
        raise Unavailable("no answer", maybe_queued=queued)
    kept = [(run.run_dir / name).read_text(encoding="utf-8") == was for name, was in zip(files, before, strict=True)]
    assert kept == [not queued] * 3


def test_what_a_stage_cannot_do_is_no_rung() -> None:
    def batches(one: RunConfig) -> list[int]:
        found = ladder(one, shorter=False, host_has_room=lambda _: False)
        return [rung.config.optim.per_device_train_batch_size for rung in found]

    assert min(batches(config("kto"))) == 2  # it compares the answers of a batch
    # Held-out answers are rated in whole groups, and answers on which more steps are taken lie in the checkpoint.
    grpo = config("grpo")
    assert {rung.config.optim.per_device_eval_batch_size for rung in ladder(
        grpo, shorter=False, host_has_room=lambda _: False)} == {grpo.optim.per_device_eval_batch_size}  # fmt: skip
    again = config("grpo", method={"reward_functions": ["a.py:b"], "num_generations": 4, "num_iterations": 2})
    assert not any(rung.resumes for rung in ladder(again, shorter=False, host_has_room=lambda _: False))
    assert ladder(config("grpo", engine="verl"), shorter=True, host_has_room=lambda _: True) == []


@pytest.fixture
def run_dir(folder: Path) -> Path:
    """A run that may take two rungs, the second of which no checkpoint can go on with."""
    path = folder / "run"
    (path / "rungs").mkdir(parents=True)
    (path / "logs").mkdir()
    (path / "run.yaml").write_text("batch: 4\n", encoding="utf-8")
    for number in (1, 2):
        (path / f"rungs/{number}.yaml").write_text(f"rung: {number}\n", encoding="utf-8")
    rungs = [{"words": "2 rows at once", "resumes": True}, {"words": "offload", "resumes": False}]
    text = json.dumps({"schema": 1, "causes": ["cuda_out_of_memory"], "rungs": rungs})
    (path / "rungs/rungs.json").write_text(text, encoding="utf-8")
    return path


def fails(run_dir: Path, job_id: str = "7", words: str = OOM) -> int:
    number = begin(run_dir, job_id)
    assert number is not None
    say(run_dir, "failed", number, words)
    return end(run_dir, 1)[0]


def test_a_rung_each_time_until_none_is_left(run_dir: Path) -> None:
    assert [fails(run_dir), fails(run_dir), fails(run_dir)] == [85, 85, 1]
    assert yaml.safe_load((run_dir / "run.yaml").read_text(encoding="utf-8")) == {"rung": 2}
    # What each attempt ran under is kept.
    kept = [(run_dir / f"run-{attempt}.yaml").read_text(encoding="utf-8") for attempt in (1, 2)]
    assert kept == ["batch: 4\n", "rung: 1\n"]
    ends = [line for line in lines(run_dir) if line["event"] == "end"]
    assert [(line["cause"], line["decision"], line.get("fix")) for line in ends] == [
        ("cuda_out_of_memory", "requeue", "2 rows at once"),
        ("cuda_out_of_memory", "requeue", "offload"),
        ("cuda_out_of_memory", "stop", None),
    ]
    assert "no change is left" in ends[-1]["why"]
    noted = read_lines(run_dir / fixes.NOTES)
    assert [(line["attempt"], line["change"], line["kept"]) for line in noted] == [
        (1, "2 rows at once", "run-1.yaml"),
        (2, "offload", "run-2.yaml"),
    ]


def test_no_rung_that_the_checkpoint_cannot_go_on_with(run_dir: Path) -> None:
    assert fails(run_dir) == 85
    checkpoint(run_dir, 20)
    assert fails(run_dir) == 1
    assert "checkpoint-20" in lines(run_dir)[-1]["why"] and (run_dir / "rungs/2.yaml").exists()


def test_only_for_its_causes_only_in_a_job_and_only_where_allowed(run_dir: Path) -> None:
    assert fails(run_dir, words="ValueError: loss is nan") == 1
    assert fails(run_dir, job_id="") == 1  # by hand: somebody is looking
    (run_dir / "rungs/rungs.json").unlink()
    assert fails(run_dir) == 1
    assert (run_dir / "run.yaml").read_text(encoding="utf-8") == "batch: 4\n"


def test_changes_do_not_count_as_a_crash_loop(run_dir: Path) -> None:
    """Three fruitless attempts end a job, but not those after which the run was changed."""
    rungs = [{"words": str(number), "resumes": True} for number in range(1, 6)]
    for number in range(3, 6):
        (run_dir / f"rungs/{number}.yaml").write_text("", encoding="utf-8")
    text = json.dumps({"schema": 1, "causes": ["cuda_out_of_memory"], "rungs": rungs})
    (run_dir / "rungs/rungs.json").write_text(text, encoding="utf-8")
    assert [fails(run_dir) for _ in range(6)] == [85] * 5 + [1]
    assert [begin(run_dir, "7"), begin(run_dir, "7"), begin(run_dir, "7")] == [7, 8, None]
