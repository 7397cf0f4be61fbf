"""The parsers on what live Slurms of three releases answered (tests/slurm/outputs.py wrote it down)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clusterctl.adapters import slurm_cluster
from clusterctl.adapters import slurm_text as text
from clusterctl.adapters.slurm_words import is_ambiguous, refusal
from clusterctl.hardware import Gres

FOLDER = Path(__file__).parent / "slurm_outputs"
RELEASES = {"22.05.8", "24.11.5", "26.05.5"}

STATES = {
    "running": "RUNNING", "two-nodes": "RUNNING", "completed": "COMPLETED", "failed": "FAILED", "killed": "FAILED",
    "cancelled": "CANCELLED", "resources": "PENDING", "held": "PENDING", "later": "PENDING", "too-long": "PENDING",
    "requeued": "PENDING", "hostile": "RUNNING", "never": "PENDING", "killed-dependent": "CANCELLED",
}  # fmt: skip
"""What has become of each job by then; of ``no-output`` the releases differ, and ``array`` is several."""

ENDS = {"failed": (7, None), "killed": (0, 9), "completed": (0, None)}


@pytest.fixture(params=sorted(RELEASES))
def answers(request: pytest.FixtureRequest) -> dict[str, Any]:
    said: dict[str, Any] = json.loads((FOLDER / f"{request.param}.json").read_text(encoding="utf-8"))
    assert said["version"] == request.param
    return said


def names(said: dict[str, Any]) -> dict[str, str]:
    """Job ids, each with the name under which the job was submitted."""
    pairs = (line.split(text.SEPARATOR) for line in said["queue"]["out"])
    return {fields[0]: fields[-1].split(":")[1] for fields in pairs}


def test_there_is_one_file_for_each_release() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == RELEASES


def test_every_line_of_squeue_says_what_became_of_its_job(answers: dict[str, Any]) -> None:
    rows = [text.parse_queue_line(line) for line in answers["queue"]["out"]]
    assert len(rows) == 18
    name = names(answers)
    found = {}
    for row in rows:
        assert row is not None and row.user == "ann" and row.folder == "/home/ann/a b'c", row
        assert row.token.partition(".")[0] == "0123456789abcdef"
        found[name[row.job.job_id]] = row.job
        assert (row.job.ended_at is not None) == row.job.state.final
        assert (row.job.started_at is None) == (row.job.state.waiting or not row.job.where)
    assert {key: str(found[key].state) for key in STATES} == STATES
    assert {key: (found[key].exit_code, found[key].signal) for key in ENDS} == ENDS
    assert found["requeued"].restarts == 1 and found["requeued"].reason == "BeginTime"
    assert found["running"].time_limit == 86400 + 2 * 3600 + 4 * 60  # Slurm rounds up to whole minutes
    assert (found["two-nodes"].where, found["never"].reason) == ("gpu-a800-[1-2]", "DependencyNeverSatisfied")
    arrays = sorted(row.job.job_id for row in rows if row and name[row.job.job_id] == "array")
    assert [one.partition("_")[2] for one in arrays] == ["3", "4", "[5-6%2]"]


def test_sacct_agrees_with_squeue(answers: dict[str, Any]) -> None:
    rows = [text.parse_record_line(line) for line in answers["records"]["out"]]
    name = names(answers)
    by_name: dict[str, list[text.Row]] = {}
    for row in rows:
        assert row is not None and row.user == "ann"
        by_name.setdefault(name.get(row.job.job_id, "array"), []).append(row)
    for key, state in STATES.items():
        newest = text.newest_record(by_name[key])
        assert newest is not None
        # Accounting may lag behind by a requeue.
        assert str(newest.job.state) == state or (key, newest.job.state) == ("requeued", "REQUEUED")
    for key in ("failed", "killed", "completed"):
        newest = text.newest_record(by_name[key])
        assert newest and (newest.job.exit_code, newest.job.signal) == ENDS[key]


def test_the_nodes_of_sinfo(answers: dict[str, Any]) -> None:
    nodes = {node.name: node for node in text.parse_nodes("\n".join(answers["nodes"]["out"]))}
    assert set(nodes) == {"gpu-a800-1", "gpu-a800-2", "gpu-a40-1", "cpu-1"}
    first, drained, plain = nodes["gpu-a800-1"], nodes["gpu-a40-1"], nodes["cpu-1"]
    assert (first.gpus, first.gpus_used, first.usable) == ((Gres("a800", 4),), (Gres("a800", 3),), True)
    assert (drained.usable, drained.reason) == (False, "bad card: Xid 79, see #12 | ask ann")
    assert (plain.gpus, plain.default_partition, plain.memory) == ((), "cpu", 250000 * 1024**2)
    assert set(first.partitions) == {"a800", "debug", "scavenge", "urgent"} and first.max_times[1] == 1800


def test_who_has_gpus(answers: dict[str, Any]) -> None:
    jobs = slurm_cluster.parse_gpu_jobs("\n".join(answers["gpu_jobs"]["out"]), "ann")
    found = {job.run_id: (str(job.state), job.gpus, job.own) for job in jobs}
    assert found == {
        "running": ("RUNNING", (Gres("a800", 2),), True),
        "two-nodes": ("RUNNING", (Gres("a800", 2),), True),
        "resources": ("PENDING", (Gres("a800", 8),), True),
    }


def test_the_answers_of_sbatch(answers: dict[str, Any]) -> None:
    assert [text.parse_submitted(line) for line in answers["submitted"]] == [str(n) for n in range(1, 17)]
    start = text.parse_start("\n".join(answers["start"]["err"]))
    assert start is not None and start > 1_700_000_000
    for kind in ("refused", "no_start"):
        for name, said in answers[kind].items():
            error = "\n".join(said["err"])
            assert said["code"] in (1, 255) and refusal(error) and not is_ambiguous(error), (kind, name)
            assert text.parse_start(error) is None


def test_a_dead_controller_is_no_refusal(answers: dict[str, Any]) -> None:
    assert " is UP" in answers["ping"]["out"][0] and " is UP" not in "\n".join(answers["down"]["ping"]["out"])
    assert is_ambiguous("\n".join(answers["down"]["queue"]["err"])) and not answers["down"]["queue"]["out"]
