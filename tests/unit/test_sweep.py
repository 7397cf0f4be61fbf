"""Parts of sweeps: values as they are typed, the sweep that a text means, a table of many runs."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from clusterctl import output
from clusterctl.adapters import places, slurm_text
from clusterctl.errors import NotFound, Unavailable, UsageProblem
from clusterctl.model import JobRef, JobState
from clusterctl.runs import compare, find, status, sweep, sweep_drafts, sweep_status
from tests.local_box import wait_until
from tests.project import CLUSTERCTL
from tests.unit.conftest import Answer

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
    assert sweep_drafts.axes(["model.lora.target_modules=[q_proj,k_proj],all-linear", "name_of='a,b', c's,d]"]) == {
        "model.lora.target_modules": ["[q_proj,k_proj]", "all-linear"],
        "name_of": ["'a,b'", "c's", "d]"],
    }
    for wrong in (
        ["optim.seed=1,,2"],
        ["optim.seed=1,2", "optim.seed=3"],
        ["optim.seed=" + ",".join(map(str, range(257)))],
        ["optim.seed=[1,2"],
        ["optim.seed=1,'2,3"],
    ):
        with pytest.raises(UsageProblem):
            sweep_drafts.axes(wrong)


def test_old_names_are_todays_with_their_values_or_refused() -> None:
    assert sweep_drafts.axes(["batch_size=1,2"]) == {"optim.per_device_train_batch_size": ["1", "2"]}
    assert sweep_drafts.axes(["validation_split_percentage=5,10"]) == {"data.validation_split": ["0.05", "0.1"]}
    for none_or_several in ("load_in_8bit=false,true", "use_local_swanlab=true,false", "output_dir=a,b"):
        with pytest.raises(UsageProblem, match="old name"):
            sweep_drafts.axes([none_or_several])


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


def test_a_sweep_is_well_only_where_all_of_it_is(root: Path) -> None:
    now = status.look(find.several(root, ["sft-20261123-a3f9"]))[0]

    def state(*states: JobState) -> JobState:
        return sweep_status.of([dataclasses.replace(now, state=one) for one in states]).state

    for other in set(JobState) - {JobState.COMPLETED}:
        assert state(JobState.COMPLETED, other) is other
    assert state(JobState.FAILED, JobState.REQUEUED) is JobState.REQUEUED
    trains = dataclasses.replace(now, state=JobState.RUNNING, eta_seconds=60.0)
    waits = dataclasses.replace(now, state=JobState.PENDING)
    assert (sweep_status.of([trains, trains]).eta_seconds, sweep_status.of([trains, waits]).eta_seconds) == (60, None)


def test_no_run_directory_is_removed_under_an_array_that_is_queued(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can be written once it is: the record of one of the runs is a folder by then."""
    record = root / "sft-20261123-a3f9-1" / "record.json"
    says = {"scontrol": "echo 'Slurmctld(primary) at n1 is UP'", "sbatch": f"rm {record}; mkdir {record}; echo 8"}
    (root / "bin").mkdir()
    for program, line in says.items():
        (root / "bin" / program).write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
        (root / "bin" / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{root}/bin:{os.environ['PATH']}")
    runs = [
        dataclasses.replace(run, record=dataclasses.replace(run.record, scheduler="slurm"))
        for run in find.several(root, ["sft-20261123-a3f9-0", "sft-20261123-a3f9-1"])
    ]
    with pytest.raises(Unavailable, match="job array 8 is queued") as caught:
        sweep.hand_over(runs)
    assert caught.value.maybe_queued


def test_none_trains_where_one_of_a_sweep_is_refused(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where no word of the cancellation can be left: the disk that refused the one is full for the others."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    runs = find.several(root, [f"sft-20261123-a3f9-{number}" for number in range(3)])
    for run in runs:
        (run.run_dir / "logs").mkdir()
        (run.run_dir / "job.sh").write_text("sleep 60\n", encoding="utf-8")
    (runs[0].run_dir / "cancelled.json").mkdir()
    (runs[2].run_dir / "record.json").unlink()
    (runs[2].run_dir / "record.json").mkdir()
    with pytest.raises(Unavailable, match=r"record\.json"):
        sweep.hand_over(runs)
    states = [json.loads((run.run_dir / "local.json").read_text(encoding="utf-8"))["state"] for run in runs[:2]]
    assert states == ["CANCELLED", "CANCELLED"]


def test_a_sweep_on_this_machine(cli: Callable[..., Answer], recipe: Path, folder: Path) -> None:
    (folder / "clusterctl.yaml").write_text("environment: {kind: python, path: /bin/true}\n", encoding="utf-8")
    same = cli("submit", recipe.name, "--sweep", "optim.learning_rate=1e-4,0.0001")
    assert same.code == 2 and "the same run twice" in same.err and not (folder / "logs").exists()
    words = ("--sweep", "optim.seed=1,2", "--notify", "./tell 'a b'")
    made = cli("submit", recipe.name, *words, "--json").json["data"]
    # Its own folder, which is no run, is not taken for what is left of one.
    os.utime(folder / "logs" / made["sweep"], (0, 0))
    assert cli("status", "--json").json["data"]["problems"] == []
    for run in made["runs"]:
        to = json.loads((Path(run["run_dir"]) / "notify.json").read_text(encoding="utf-8"))["to"]
        assert shlex.split(to) == [str(folder / "tell"), "a b"]  # it is started elsewhere


def test_ctrl_c_leaves_nothing_of_a_sweep_that_is_being_submitted(
    home: dict[str, str], recipe: Path, folder: Path
) -> None:
    """One by one they take a while, and nobody waits for the rest."""
    (folder / "clusterctl.yaml").write_text("environment: {kind: python, path: /bin/true}\n", encoding="utf-8")
    words = [CLUSTERCTL, "submit", recipe.name, "--sweep", f"optim.seed={','.join(map(str, range(16)))}"]
    with subprocess.Popen(words, cwd=folder, env=home, stderr=subprocess.PIPE, text=True) as submitting:
        wait_until(lambda: any(folder.glob("logs/*-2/local.json")))
        submitting.send_signal(signal.SIGINT)
        _, said = submitting.communicate(timeout=60)
    assert submitting.returncode == 130 and "nothing of the sweep is left" in said
    assert not list((folder / "logs").iterdir())


def test_names_of_metrics_reach_no_terminal_raw(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = {"step": 1, "attempt": 1, "loss": 1.0, "eval_\x1b[31mx": 3}
    (root / "sft-20261122-77b1/metrics.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    with pytest.raises(UsageProblem) as caught:
        compare.compare(find.several(root, ["sft-20261122-77b1", "sft-20261123-a3f9-0"]), "\x1b[31mx")
    output.show_error(caught.value, command="compare", as_json=False)
    said = capsys.readouterr().err
    assert "did you mean eval_?[31mx" in said and "\x1b" not in said


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
