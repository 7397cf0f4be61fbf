"""A Slurm that is down, hangs, loses a node or preempts: the adapter answers in time and claims nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import pytest

from clusterctl.adapters.slurm_commands import PING_TIMEOUT
from clusterctl.errors import Unavailable
from clusterctl.model import JobState
from tests.slurm.box import Box, until
from tests.slurm.client import Client, fake_command
from tests.slurm.conftest import BoxFactory

T = TypeVar("T")
MUST_ANSWER_WITHIN = 15.0


@contextmanager
def in_time() -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < MUST_ANSWER_WITHIN


def when_it_answers(question: Callable[[], T]) -> T:
    """Ask until Slurm has come to itself."""
    answers: list[T] = []

    def answered() -> bool:
        with suppress(Unavailable):
            answers.append(question())
        return bool(answers)

    until(answered, "Slurm to answer")
    return answers[0]


@pytest.fixture
def own(slurm_box: BoxFactory, enter: Callable[[Box], Client]) -> Client:
    """A user of a private cluster, whose controller may come to harm."""
    return enter(slurm_box())


def test_controller_down(own: Client) -> None:
    ref = own.submit("sleep 60")
    own.wait_for(ref, JobState.RUNNING)
    own.box.stop_controller()
    submission = own.prepare("true")
    with in_time(), pytest.raises(Unavailable, match=r"slurmctld\) is down; nothing was submitted"):
        own.slurm.submit(submission)
    assert "sbatch" not in own.slurm.calls[-2:]
    for question in (lambda: own.look(ref), lambda: own.slurm.cancel([ref]), own.slurm.nodes):
        with in_time(), pytest.raises(Unavailable, match=r"slurmctld\) is down"):
            question()
    with in_time(), pytest.raises(Unavailable):
        own.slurm.find(submission.token)
    state, _ = own.slurm.last_seen(ref) or (None, 0.0)
    assert state is JobState.RUNNING
    own.box.start_controller()
    assert when_it_answers(lambda: own.slurm.find(submission.token)) is None
    assert own.wait_for(ref, JobState.RUNNING)
    assert own.slurm.submit(submission)
    assert len(own.with_token(submission.token)) == 1


def test_controller_hangs(own: Client) -> None:
    ref = own.submit("sleep 60")
    own.wait_for(ref, JobState.RUNNING)
    submission = own.prepare("true")
    own.box.hang_controller()
    with in_time(), pytest.raises(Unavailable, match="does not answer; nothing was submitted"):
        own.slurm.submit(submission)
    with in_time(), pytest.raises(Unavailable, match="does not answer"):
        own.look(ref)
    began = time.monotonic()
    with pytest.raises(Unavailable, match="does not answer"):
        own.again().jobs([ref])
    assert time.monotonic() - began < PING_TIMEOUT, "the failure is shared, too"
    own.box.resume_controller()
    assert when_it_answers(lambda: own.look(ref))
    assert own.with_token(submission.token) == []


def test_controller_hangs_just_when_sbatch_asks(own: Client, commands: Path) -> None:
    """What sbatch sent lies in the controller's socket: whether it is read some day, nobody can say."""
    pid = own.box.pid("slurmctld")
    log = commands / "log"
    fake_command(commands, "sbatch", f'echo x >> "{log}"; kill -STOP {pid}; exec "$REAL" "$@"')
    submission = own.prepare("true")
    with in_time(), pytest.raises(Unavailable, match=r"did not answer .* not known whether the job was queued"):
        own.slurm.submit(submission)
    assert log.read_text() == "x\n"
    own.box.resume_controller()
    job_id = when_it_answers(lambda: own.slurm.find(submission.token))
    assert own.with_token(submission.token) == ([job_id] if job_id else [])


def test_a_node_dies(slurm_box: BoxFactory, enter: Callable[[Box], Client]) -> None:
    client = enter(slurm_box(slurmd_timeout=3, extra="MessageTimeout=2"))
    lost, again = client.submit("sleep 300", "--no-requeue"), client.submit("sleep 300", "--requeue")
    client.wait_for(lost, JobState.RUNNING)
    client.wait_for(again, JobState.RUNNING)
    client.box.kill_node("cpu-1")
    client.wait_for(lost, JobState.NODE_FAIL)
    assert client.wait_for(again, JobState.PENDING).restarts == 1
    assert not {node.name: node for node in client.slurm.nodes()}["cpu-1"].usable
    client.box.start_node("cpu-1")
    client.wait_for(again, JobState.RUNNING)


def test_preemption(client: Client) -> None:
    victim = client.submit("sleep 300", "--partition=scavenge", "--nodelist=cpu-1", "--exclusive", "--requeue")
    client.wait_for(victim, JobState.RUNNING)
    urgent = client.submit("sleep 300", "--partition=urgent", "--nodelist=cpu-1", "--exclusive")
    client.wait_for(urgent, JobState.RUNNING)
    assert client.wait_for(victim, JobState.PENDING).restarts == 1
    client.slurm.cancel([urgent, victim])
