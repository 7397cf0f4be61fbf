"""Real training out of memory under the local runner: what the job changes by itself, and what a person is told."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.project import Project, make_project
from tests.slurm.box import until
from tests.small_card import steps, use_small_card
from tests.tiny import write_csv
from tests.webhook import webhook

STEP = ("--set", "optim.per_device_train_batch_size=4", "--set", "optim.gradient_accumulation_steps=2")


@pytest.fixture
def project(tiny_model: Path, tmp_path: Path) -> Project:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "CLUSTERCTL"))}
    return make_project(tmp_path / "a'; echo foo", env, tiny_model, "local")


def test_it_goes_on_with_smaller_batches_of_the_same_rows(project: Project) -> None:
    """From the beginning, and in the middle of an epoch: step 7 fails, and it goes on from the checkpoint of step 4."""
    # Rows of many lengths: the longest come first.
    write_csv(project.folder / "data.csv", [(f"Number {n}?", "ab" * (n % 7 * 2 + 1)) for n in range(20)])
    saved = ("--set", "output.save_steps=4", "--set", "output.save_total_limit=10")
    use_small_card(project, most=4)
    whole = project.submit(*STEP, *saved)
    use_small_card(project, most=2, begins=11)
    later = project.submit(*STEP, *saved, "--auto-fix", "oom")
    use_small_card(project, most=1)
    with webhook() as hook:
        small = project.submit(*STEP, "--auto-fix", "oom", "--notify", hook.url)
        for run in (whole, later, small):
            run.wait_for("COMPLETED", timeout=400)
        until(lambda: len(hook.of(small.run_id)) == 3, "three messages")
        told = [(one["event"], one.get("cause"), one.get("fix")) for one in hook.of(small.run_id)]
    assert told == [
        ("requeued", "cuda_out_of_memory", "2 rows at once"),
        ("requeued", "cuda_out_of_memory", "1 row at once"),
        ("finished", None, None),
    ]
    # 20 rows an epoch, 8 a step.
    undisturbed = steps(whole.run_dir, 1, [2, 2, 1])
    assert len(undisturbed) == 12
    assert steps(small.run_dir, 3, [8, 8, 4]) == undisturbed
    assert [line["checkpoint"] for line in later.attempts if line["event"] == "begin"] == [None, 4]
    # Step 5 is the second of an epoch.
    assert steps(later.run_dir, 2, [4, 2, 4]) == undisturbed[4:]

    changes = [json.loads(line) for line in (small.run_dir / "fixes.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(one["attempt"], one["change"]) for one in changes] == [(1, "2 rows at once"), (2, "1 row at once")]
    assert "gradient_accumulation_steps: 8" in (small.run_dir / "run.yaml").read_text(encoding="utf-8")
    assert "gradient_accumulation_steps: 2" in (small.run_dir / "run-1.yaml").read_text(encoding="utf-8")
    # Without a GPU the host's memory is what smaller batches save.
    rungs = json.loads((small.run_dir / "rungs/rungs.json").read_text(encoding="utf-8"))
    assert rungs["causes"] == ["cuda_out_of_memory", "host_out_of_memory"]
    # Where the word goes is nobody else's business.
    assert "not-for-others" not in (small.run_dir / "record.json").read_text(encoding="utf-8")
    assert (small.run_dir / "notify.json").stat().st_mode & 0o777 == 0o600


def test_without_leave_it_stops_and_says_what_to_type(project: Project) -> None:
    use_small_card(project, most=2)
    run = project.submit(*STEP)
    until(lambda: project.state(run.run_id)["state"] == "FAILED", "the failure", 400)
    now = project.state(run.run_id)
    assert now["cause"] == "a GPU ran out of memory"
    text = " ".join(project.cli("status", run.run_id).out.split())
    assert f"clusterctl diagnose {run.run_id}" in text and "a GPU ran out of memory" in text
    said = project.cli("diagnose", run.run_id, "--json").json["data"]
    assert (said["cause"], said["sure"]) == ("cuda_out_of_memory", "certain")
    command = said["remedy"].split("`")[1]
    assert command.startswith(f"clusterctl resume {run.run_id} --set ")
    words = command.split()[1:]

    wrong = project.cli("resume", run.run_id, "--set", "profile.time=1:00:00")
    assert wrong.code == 2 and "clusterctl submit" in wrong.err
    wrong = project.cli("resume", run.run_id, "--set", "optim.per_device_train_batch_size=3")
    assert wrong.code == 2 and "train_batch_size" in wrong.err
    assert project.cli(*words).code == 0
    run.wait_for("COMPLETED", timeout=400)
    assert project.cli("diagnose", run.run_id, "--json").json["data"]["cause"] == "healthy"
    [change] = [json.loads(line) for line in (run.run_dir / "fixes.jsonl").read_text(encoding="utf-8").splitlines()]
    assert change["by"] == "hand" and (run.run_dir / change["kept"]).exists()
