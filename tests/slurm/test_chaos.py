"""Chaos on a real Slurm: whatever happens to a training, it ends with the same weights, and its history says why.

The suite plays four faults. ``CHAOS_ROUNDS=1`` plays each one once, 5 five times, ``CHAOS_SEED`` in another order and
at other steps.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from tests.monkey import PATIENCE, ROUNDS, Monkey, long_run, number_of, small_disk, table
from tests.project import Project, make_project
from tests.slurm.box import Box, until

OPTIONS = ("--set", "profile.partition=scavenge", "--set", "profile.constraint=a800")


@pytest.fixture
def cluster() -> Iterator[Box]:
    """A cluster of our own, to which all of this happens."""
    box = Box(slurmd_timeout=5)
    try:
        box.up()
        yield box
    finally:
        box.down()


class ClusterMonkey(Monkey):
    """With the faults of a cluster."""

    box: Box

    def evidence(self) -> str:
        job = self.box.command("scontrol", "show", "job", self.job_id)
        nodes = self.box.command("sinfo", "-N", "-o", "%N %P %T %E")
        return "\n".join([super().evidence(), job.stdout, nodes.stdout])

    @property
    def job_id(self) -> str:
        return str(self.begun["job_id"])

    @property
    def node(self) -> str:
        return str(self.begun["host"])

    def kill_node(self) -> str:
        """slurmd and all that it runs are gone."""
        begun, node = self.begun, self.node
        self.box.kill_node(node)
        after = self.wait_for_next(begun)
        self.box.start_node(node)
        assert after["job_id"] == begun["job_id"]
        return self.called(begun, "node_failure")

    def restart_slurmctld(self) -> str:
        """The training does not notice; who looks meanwhile is told."""
        begun = self.begun
        self.box.stop_controller()
        said: list[str] = []

        def known() -> bool:
            now = self.project.state(self.run.run_id)
            said[:] = [now["state"], now["why"]]
            return now["state"] == "UNKNOWN"

        until(known, f"the silence to be noticed, {said}")
        self.box.start_controller()
        until(lambda: self.project.state(self.run.run_id)["state"] == "RUNNING", "the truth", PATIENCE)
        assert "slurmctld) is down" in said[1] and self.begun == begun, said
        return "UNKNOWN, slurmctld is down"

    def slurmctld_away_at_the_return(self) -> str:
        """The job asks to be queued again just when nobody listens."""
        begun = self.begun
        script = f"job{int(self.job_id):05}/slurm_script".encode()
        [shell] = [int(p.name) for p in Path("/proc").glob("[0-9]*") if script in _command_line(p)]
        self.box.stop_controller()
        os.kill(shell, signal.SIGUSR1)
        errors = self.run.run_dir / "logs/job.err"
        said = errors.stat().st_size
        until(lambda: "nexpected message" in errors.read_text()[said:], "the job's question", PATIENCE)
        self.box.start_controller()
        self.wait_for_next(begun)
        return self.called(begun, "time_limit")

    def warn(self) -> str:
        """USR1, as before the time limit."""
        begun = self.begun
        self.box.command("scancel", "--batch", "--signal=USR1", self.job_id)
        self.wait_for_next(begun)
        return self.called(begun, "time_limit")

    def preempt(self) -> str:
        begun = self.begun
        urgent = ("--partition=urgent", "--exclusive", f"--nodelist={self.node}", "--output=/dev/null")
        job = self.box.submit("sleep 1", *urgent, cwd=self.project.folder)
        self.wait_for_next(begun)
        self.box.wait_for(job, "COMPLETED", timeout=PATIENCE)
        return self.called(begun, "preempted")

    def requeue(self) -> str:
        begun = self.begun
        self.box.command("scontrol", "requeue", self.job_id)
        self.wait_for_next(begun)
        return self.called(begun, "requeued")

    def drain(self) -> str:
        """Both nodes take no new jobs, and the job is put back into the queue: it waits, and says for what."""
        begun = self.begun
        self.box.command("scontrol", "update", "NodeName=gpu-a800-[1-2]", "State=DRAIN", "Reason=chaos")
        self.box.command("scontrol", "requeue", self.job_id)
        words = ("down, drained or reserved", "not available")
        why = ""

        def told() -> bool:
            nonlocal why
            why = str(self.project.state(self.run.run_id)["why"])
            return any(word in why for word in words)

        until(told, f"the reason to be told, last {why!r}", PATIENCE)
        self.box.command("scontrol", "update", "NodeName=gpu-a800-[1-2]", "State=RESUME")
        self.wait_for_next(begun)
        return f"{self.called(begun, 'requeued')}; PENDING, {why}"


def _command_line(process: Path) -> bytes:
    with suppress(OSError):
        return (process / "cmdline").read_bytes()
    return b""


def test_the_weights_survive_everything_and_the_history_names_it(
    cluster: Box, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calm = make_project(tmp_path / "calm", cluster.env, tiny_model)
    project = make_project(tmp_path / "a'; echo foo $(x)", cluster.env, tiny_model)
    with small_disk(project.folder / "logs"):
        _chaos(calm, project, cluster, capsys)


def _chaos(calm: Project, project: Project, cluster: Box, capsys: pytest.CaptureFixture[str]) -> None:
    length = long_run(12, spare=1200)
    undisturbed = calm.submit(*length)
    monkey = ClusterMonkey(project.submit(*length, *OPTIONS))
    monkey.box = cluster
    monkey.play(
        {
            "slurmd killed": monkey.kill_node,
            "slurmctld restarted": monkey.restart_slurmctld,
            "slurmctld away when the job asks to return": monkey.slurmctld_away_at_the_return,
            "USR1": monkey.warn,
            "preempted": monkey.preempt,
            "requeued": monkey.requeue,
            "both nodes drained, then requeued": monkey.drain,
            "cancelled and resumed": monkey.cancel,
            "rank killed": monkey.kill_rank,
            "newest checkpoint torn, mark and all": partial(monkey.tear_checkpoint, marked=True),
            "newest checkpoint torn in a killed save": partial(monkey.tear_checkpoint, marked=False),
            "disk full for a while": monkey.fill_disk,
        }
    )
    monkey.run.wait_for("COMPLETED", timeout=4 * PATIENCE * (ROUNDS or 1))
    undisturbed.wait_for("COMPLETED", timeout=4 * PATIENCE * (ROUNDS or 1))
    with capsys.disabled():
        print(table("chaos on Slurm", monkey.done))
    assert len(monkey.done) == number_of(12)
    assert monkey.run.weights == undisturbed.weights
    assert "nothing wrong" in project.cli("diagnose", monkey.run.run_id).out
