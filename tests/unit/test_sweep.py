"""Parts of sweeps: values as they are typed, the sweep that a text means, a table of many runs."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest

from clusterctl.adapters import places, slurm_text
from clusterctl.errors import NotFound, UsageProblem
from clusterctl.model import JobRef
from clusterctl.runs import compare, find, sweep, sweep_status

RECORD = {
    "name": "sft", "stage": "sft", "kind": "train", "recipe": "sft", "profile": "cpu", "scheduler": "local",
    "resources": {}, "fingerprint": "f", "user": "me", "host": "h", "command": [],
}  # fmt: skip


def write(root: Path, run_id: str, created_at: float, *, job: str = "", of: str = "", swept: str = "") -> Path:
    run_dir = root / run_id
    run_dir.mkdir(parents=True)
    jobs = [{"token": run_id, "requested_at": 1.0, "job_id": job}] if job else []
    own = {"run_id": run_id, "created_at": created_at, "sweep": of, "swept": [swept] if of else [], "jobs": jobs}
    (run_dir / "record.json").write_text(json.dumps(RECORD | own), encoding="utf-8")
    return run_dir


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in range(12):
        write(tmp_path, f"sft-20261123-a3f9-{number}", number, job=f"7_{number}", of="sft-20261123-a3f9", swept="a=1")
    (tmp_path / "sft-20261123-a3f9").mkdir()
    write(tmp_path, "sft-20261122-77b1", -1.0, job="70")
    return tmp_path


def test_lists_and_quoted_commas_are_values() -> None:
    assert sweep.axes(["model.lora.target_modules=[q_proj,k_proj],all-linear", "name_of='a,b', c"]) == {
        "model.lora.target_modules": ["[q_proj,k_proj]", "all-linear"],
        "name_of": ["'a,b'", "c"],
    }
    for wrong in (
        ["optim.seed=1,,2"],
        ["optim.seed=1,2", "optim.seed=3"],
        ["optim.seed=" + ",".join(map(str, range(257)))],
    ):
        with pytest.raises(UsageProblem):
            sweep.axes(wrong)


def test_tasks_as_sbatch_reads_them() -> None:
    assert slurm_text.array([0, 1, 2, 3], 2) == "0-3%2"
    assert slurm_text.array([7, 1, 2], None) == "1-2,7"


def test_a_task_without_our_comment_is_known_by_its_folder(tmp_path: Path) -> None:
    fields = ["7_3", "COMPLETED", "0:0", "100", "100", "110", "60", "me", "n1", "/x/sft-20261123-a3f9", ""]
    row = slurm_text.parse_record_line(slurm_text.SEPARATOR.join(fields))
    assert row is not None
    ref = JobRef("7_3", "t.3", 100.0, tmp_path / "sft-20261123-a3f9-3")
    assert row.belongs_to(ref, "me")
    assert not row.belongs_to(dataclasses.replace(ref, run_dir=tmp_path / "sft-20261123-a3f9-4"), "me")
    fields[-1] = "clusterctl:sft-20261123-a3f9:t"
    commented = slurm_text.parse_record_line(slurm_text.SEPARATOR.join(fields))
    assert commented is not None and commented.token == "t.3" and commented.belongs_to(ref, "me")


@pytest.mark.parametrize("text", ["sft-20261123-a3f9", "sft-20261123", "7", "last"])
def test_a_sweep_is_meant_by_id_beginning_job_and_last(root: Path, text: str) -> None:
    found = find.several(root, [text])
    assert [run.record.run_id for run in found] == [f"sft-20261123-a3f9-{number}" for number in range(12)]


def test_a_run_of_a_sweep_is_meant_by_its_own_id(root: Path) -> None:
    assert [run.record.run_id for run in find.several(root, ["sft-20261123-a3f9-1"])] == ["sft-20261123-a3f9-1"]
    assert find.one(root, "7_11").record.run_id == "sft-20261123-a3f9-11"
    assert find.one(root, "70").record.run_id == "sft-20261122-77b1"
    with pytest.raises(UsageProblem, match="sweep of 12 runs"):
        find.one(root, "sft-20261123-a3f9")
    with pytest.raises(UsageProblem, match="begins"):
        find.several(root, ["sft"])
    with pytest.raises(NotFound):
        find.several(root, ["other"])


def test_a_sweep_counts_as_one_of_the_newest(root: Path) -> None:
    runs, _ = find.every(root)
    older, newest = sweep_status.newest(runs, 1)
    assert (len(older), len(newest)) == (1, 12)
    assert sweep_status.newest(runs, 2)[0] == []


def test_so_many_places_and_no_more(tmp_path: Path) -> None:
    first, second = places.take(tmp_path / "p", 2), places.take(tmp_path / "p", 2)
    assert first is not None and second is not None and places.take(tmp_path / "p", 2) is None

    os.close(first)
    assert places.take(tmp_path / "p", 2) is not None


def test_runs_that_measured_nothing_or_are_broken_are_compared_all_the_same(root: Path) -> None:
    for number, rate in ((0, 0.1), (1, 0.2), (2, 0.3)):
        run_dir = root / f"sft-20261123-a3f9-{number}"
        (run_dir / "run.yaml").write_text(f"name: n{number}\noptim: {{learning_rate: {rate}, seed: 1}}\n")
        lines = [{"step": step, "attempt": 1, "loss": rate / step, "tokens_per_second": 10 * rate} for step in (1, 2)]
        if number < 2:
            (run_dir / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    (root / "sft-20261123-a3f9-1/run.yaml").write_text("[torn", encoding="utf-8")
    runs = find.several(root, [f"sft-20261123-a3f9-{number}" for number in range(3)])
    found = compare.compare(runs, None)
    assert found.keys == ("optim.learning_rate",) and found.by == "loss_last" and len(found.problems) == 1
    assert [row.run_id[-1] for row in found.runs] == ["0", "1", "2"]
    assert found.runs[0].results == {"loss_first": 0.1, "loss_last": 0.05, "tokens_per_second": 1.0}
    fastest = compare.compare(runs, "tokens_per_second")
    assert fastest.more_is_better and [row.run_id[-1] for row in fastest.runs] == ["1", "0", "2"]
