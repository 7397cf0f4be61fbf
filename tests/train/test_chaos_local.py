"""Chaos on one machine without Slurm, see tests/slurm/test_chaos.py."""

from __future__ import annotations

import json
import os
import signal
from functools import partial
from pathlib import Path

import pytest

from clusterctl.adapters import procfs
from tests.monkey import PATIENCE, ROUNDS, Monkey, long_run, number_of, small_disk, table
from tests.project import Project, make_project


class MachineMonkey(Monkey):
    """With the faults of one machine."""

    @property
    def local(self) -> dict[str, object]:
        return dict(json.loads((self.run.run_dir / "local.json").read_text(encoding="utf-8")))

    @property
    def runner(self) -> int:
        return int(self.local["runner"]["pid"])  # type: ignore[index]

    def _script(self) -> int:
        """The shell that runs job.sh."""
        found = procfs.job_processes(str(self.local["token"]))
        [shell] = [p.pid for p in found if Path(f"/proc/{p.pid}/cmdline").read_bytes() == b"bash\0job.sh\0"]
        return shell

    def kill_runner(self) -> str:
        """The job goes on without it, and is not taken for dead."""
        begun = self.begun
        os.kill(self.runner, signal.SIGKILL)
        assert self.project.state(self.run.run_id)["state"] == "RUNNING"
        # Nobody is left to start it again, so it is cancelled, by force.
        return self.cancel() if self.begun == begun else ""

    def end_runner(self) -> str:
        """What machines send when they shut down."""
        begun = self.begun
        os.kill(self.runner, signal.SIGTERM)
        last = self.wait_for_end("NODE_FAIL", "FAILED", "CANCELLED")
        assert last["state"] == "NODE_FAIL", last
        self.resume()
        self.wait_for_next(begun)
        return f"{self.called(begun, 'stopped')}; {last['state']}"

    def lose_power(self) -> str:
        """Everything of the job is gone at once."""
        begun = self.begun
        processes = [self.runner, *(p.pid for p in procfs.job_processes(str(self.local["token"])))]
        for pid in dict.fromkeys(processes):
            os.kill(pid, signal.SIGKILL)
        last = self.wait_for_end("FAILED", "NODE_FAIL", "UNKNOWN")
        self.resume()
        self.wait_for_next(begun)
        return f"{self.called(begun, 'killed')}; {last['state']}, {last['why']}"

    def kill_shell(self) -> str:
        """job.sh is killed: the runner ends what it leaves behind."""
        begun = self.begun
        os.kill(self._script(), signal.SIGKILL)
        self.wait_for_end("FAILED")
        self.resume()
        self.wait_for_next(begun)
        return self.called(begun, "killed")

    def warn(self) -> str:
        """USR1, as before the time limit."""
        begun = self.begun
        os.kill(self._script(), signal.SIGUSR1)
        self.wait_for_next(begun)
        return self.called(begun, "time_limit")


def test_the_weights_survive_everything_and_the_history_names_it(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "CLUSTERCTL"))}
    calm = make_project(tmp_path / "calm", env, tiny_model, "local")
    project = make_project(tmp_path / "a'; echo foo $(x)", env, tiny_model, "local")
    with small_disk(project.folder / "logs"):
        _chaos(calm, project, capsys)


def _chaos(calm: Project, project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    length = long_run(11)
    undisturbed = calm.submit(*length)
    monkey = MachineMonkey(project.submit(*length))
    monkey.play(
        {
            "runner killed, then cancelled": monkey.kill_runner,
            "runner told to end": monkey.end_runner,
            "power lost": monkey.lose_power,
            "shell killed": monkey.kill_shell,
            "USR1": monkey.warn,
            "cancelled and resumed": monkey.cancel,
            "stopped by the file `stop`": monkey.stop_file,
            "rank killed": monkey.kill_rank,
            "newest checkpoint torn, mark and all": partial(monkey.tear_checkpoint, marked=True),
            "newest checkpoint torn in a killed save": partial(monkey.tear_checkpoint, marked=False),
            "disk full for a while": monkey.fill_disk,
        }
    )
    monkey.run.wait_for("COMPLETED", timeout=PATIENCE * (ROUNDS or 1))
    undisturbed.wait_for("COMPLETED", timeout=PATIENCE * (ROUNDS or 1))
    with capsys.disabled():
        print(table("chaos on one machine", monkey.done))
    assert len(monkey.done) == number_of(11)
    assert monkey.run.weights == undisturbed.weights
    assert "nothing wrong" in project.cli("diagnose", monkey.run.run_id).out
