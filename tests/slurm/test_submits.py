"""Submissions while slurmctld comes and goes. ``benchmarks/submits.py`` does it a thousand times."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.slurm.conftest import BoxFactory
from tests.slurm.stand_in import make_stand_in_project
from tests.slurm.submitting import check, settle, submit_all


def test_no_job_twice_none_lost_no_record_without_its_job(
    slurm_box: BoxFactory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    box = slurm_box()
    project = make_stand_in_project(tmp_path / "a'; echo foo", box)
    box.command("scontrol", "update", "NodeName=cpu-1", "State=DRAIN", "Reason=jobs shall wait")
    done = submit_all(box, project, 40, workers=4, dice=random.Random(5))
    never = settle(project, wait=False)
    check(box, project, done.wanted)
    with capsys.disabled():
        print(f"\n  40 submits, slurmctld {done.stops} times down, {done.hangs} times hung: {dict(done.answers)};"
              f" {never} had never arrived")  # fmt: skip
    assert done.stops + done.hangs >= 2
