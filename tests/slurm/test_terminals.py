"""What many terminals cost Slurm. ``benchmarks/terminals.py`` opens fifty for a minute."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.slurm.box import Box
from tests.slurm.stand_in import finish, finish_all, make_stand_in_project
from tests.slurm.watching import sit


def test_the_queries_of_sixteen_terminals_stay_within_the_budget(
    slurm_accounting: Box, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = make_stand_in_project(tmp_path / "a'; echo foo", slurm_accounting)
    try:
        ended, running = project.submit(), project.submit()
        project.submit("--after", running.run_id)
        finish(ended)
        running.wait_for_step(1)
        seen = sit(project, [running], terminals=16, seconds=12, folder=tmp_path / "commands")
    finally:
        finish_all(project)
    with capsys.disabled():
        print(
            f"\n  {seen.terminals} terminals, {seen.seconds:.0f} s, {seen.squeue_budget} squeue allowed: {seen.calls}"
        )
    assert all(seen.written), "a terminal stayed empty"
    assert seen.calls["squeue"] and seen.within_budget, seen
