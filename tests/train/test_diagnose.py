"""``diagnose`` of runs that failed for real under the local runner, and of one that did not."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.project import CLUSTERCTL, Project, Run, make_project
from tests.slurm.box import until


@pytest.fixture
def project(tiny_model: Path, tmp_path: Path) -> Project:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "CLUSTERCTL"))}
    return make_project(tmp_path / "a'; echo foo", env, tiny_model, "local")


def diagnosed(run: Run) -> dict[str, Any]:
    answer = run.project.cli("diagnose", run.run_id, "--json")
    assert answer.code == 0, answer.err
    return dict(answer.json["data"])


def ended(run: Run) -> bool:
    return run.project.state(run.run_id)["state"] in ("COMPLETED", "FAILED", "CANCELLED")


@pytest.fixture
def small_group() -> Iterator[Path | None]:
    """A control group of less memory than PyTorch takes; None where this machine lets us make none."""
    for root, limit in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        group = Path(root, f"clusterctl-{os.getpid()}")
        with contextlib.suppress(OSError):
            group.mkdir()
            try:
                (group / limit).write_text(str(200 * 2**20), encoding="ascii")
                yield group
                return
            finally:
                with contextlib.suppress(OSError):
                    group.rmdir()
    yield None


def test_what_really_happened_is_what_it_says(project: Project, small_group: Path | None) -> None:
    wild = ("--set", "model.adapter=none", "--set", "optim.optim=sgd", "--set", "optim.learning_rate=1e12")
    diverging = project.submit(*wild, "--set", "optim.max_grad_norm=1e9", "--set", "optim.max_steps=100")
    killed = project.submit("--set", "optim.max_steps=2000")
    shutil.copy(project.folder / "data.csv", project.folder / "gone.csv")
    vanishing = project.submit("--set", "data.train_files=gone.csv")
    (project.folder / "gone.csv").unlink()
    healthy = project.submit()
    starved = _starved(project, small_group)
    killed.wait_for_step(1)
    trainer = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit() and _trains(path, killed)]
    os.kill(trainer[0], signal.SIGKILL)
    for run in (diverging, killed, vanishing, healthy, *starved):
        until(lambda run=run: ended(run), f"{run.run_id} to end", 180)

    said = diagnosed(diverging)
    assert (said["cause"], said["sure"], said["policy"]) == ("loss_not_finite", "certain", "stop")
    assert "the run has diverged" in said["quote"]
    assert diagnosed(killed)["cause"] == "killed"
    # As it stands in the error log: the reader's own words, and the file that it names.
    assert "gone.csv" in diagnosed(vanishing)["quote"]
    assert diagnosed(healthy)["cause"] == "healthy"
    for run in starved:
        said = diagnosed(run)
        assert (said["cause"], said["sure"], said["policy"]) == ("host_out_of_memory", "likely", "stop"), said
        assert "Killed" in said["quote"] and "profile.mem" in said["remedy"]
    text = project.cli("diagnose", diverging.run_id).out
    assert text.splitlines()[1].startswith("cause ") and "(certain)" in text
    log = diverging.run_dir / "logs/job.err"
    assert json.loads(project.cli("diagnose", str(log), "--json").out)["data"]["cause"] == "loss_not_finite"
    unknown = project.cli("diagnose", "no-such-run")
    assert unknown.code == 6 and "Traceback" not in unknown.err


def _starved(project: Project, group: Path | None) -> list[Run]:
    """A run in this control group, if there is one."""
    if group is None:
        return []
    enter = f'echo $$ > {group}/cgroup.procs && exec "$@"'
    words = ["bash", "-c", enter, "-", CLUSTERCTL, "submit", "mine.yaml", "--name", "starved", "--json"]
    done = subprocess.run(words, cwd=project.folder, env=project.env, capture_output=True, text=True)
    assert done.returncode == 0, done
    [made] = json.loads(done.stdout)["data"]["runs"]
    return [Run(project, made["run_id"], made["job_id"], Path(made["run_dir"]))]


def _trains(process: Path, run: Run) -> bool:
    try:
        words = (process / "cmdline").read_bytes().decode().split("\0")
    except OSError:
        return False
    return "trainers" in words and any(str(run.run_dir) in word for word in words)
