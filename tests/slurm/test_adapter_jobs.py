"""What the adapter says about jobs of a real Slurm: states, reasons, identity, cancelling, forgetting."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from clusterctl.adapters.slurm_words import explain_reason
from clusterctl.errors import Rejected
from clusterctl.model import JobRef, JobState
from tests.slurm.box import Box, until
from tests.slurm.client import Client, fake_command
from tests.slurm.conftest import BoxFactory

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can run another user's jobs in a private Slurm")


def by_hand_job(client: Client, script: str, *options: str) -> JobRef:
    """A job in a run directory that lacks our comment, as where a site's plug-in has replaced it."""
    run_dir = client.folder / "by-hand"
    run_dir.mkdir()
    now = time.time()
    return JobRef(client.box.submit(script, *options, cwd=run_dir), "by-hand", now, run_dir)


def test_why_jobs_wait(client: Client) -> None:
    reasons = {
        client.submit("true", "--hold"): "held by its owner: `scontrol release` lets it go on",
        client.submit("true", "--begin=now+1hour"): "waiting for its begin time (after a requeue about two minutes)",
        client.submit("true", "--partition=debug", "--time=5-0"): "asks for more time than the partition allows",
    }
    holder = client.submit("sleep 60", "--partition=a40", "--exclusive")
    client.wait_for(holder, JobState.RUNNING)
    reasons[client.submit("true", "--partition=a40", "--gres=gpu:a40:4")] = "waiting for free resources"

    def explained() -> dict[JobRef, str]:
        jobs = client.slurm.jobs(list(reasons), max_age=0)
        assert all(job.state is JobState.PENDING and job.started_at is None for job in jobs.values())
        return {ref: explain_reason(jobs[ref.token].reason) for ref in reasons if ref.token in jobs}

    until(lambda: explained() == reasons, f"the reasons, they are {explained()}")
    client.slurm.cancel([holder, *reasons])


def test_hostile_names_and_comments_of_other_jobs(client: Client) -> None:
    ref = client.submit("sleep 60", '--job-name="we\'ird | \\\\ \\"n\\" # $(id) 微调"')
    fake = f"x\n{ref.job_id}\x1fFAILED\x1f0\x1f0\x1f1\x1f1\x1f1\x1f1:00\x1froot\x1fn\x1fr\x1fw\x1fclusterctl:r:no"
    for name, comment in (("a\nb|c\x1fd", fake), ("\x0b\x0c\x85\u2028", "\x1f" * 20), ("-x", "clusterctl::\n:")):
        client.box.submit("true", "--hold", f"--job-name={name}", f"--comment={comment}", cwd=client.box.folder)
    client.box.submit("true", "--hold", "--array=0-5%2", cwd=client.box.folder)
    assert client.wait_for(ref, JobState.RUNNING).where == "cpu-1"
    assert client.slurm.find(ref.token) == ref.job_id
    client.slurm.cancel([ref])
    client.box.command("scancel", "--state=PENDING", "--me")


def test_a_requeued_job_is_still_ours(client: Client) -> None:
    ref = client.submit('[ "${SLURM_RESTART_COUNT:-0}" = 1 ] || sleep 60')
    client.wait_for(ref, JobState.RUNNING)
    client.box.command("scontrol", "requeue", ref.job_id)
    waiting = client.wait_for(ref, JobState.PENDING)
    assert waiting.restarts == 1 and waiting.started_at is None
    assert client.wait_for(ref, JobState.COMPLETED).restarts == 1


def test_cancel_while_pending_and_running_and_after(client: Client) -> None:
    pending, running, ended = client.submit("true", "--hold"), client.submit("sleep 60"), client.submit("true")
    client.wait_for(running, JobState.RUNNING)
    client.wait_for(ended, JobState.COMPLETED)
    unknown = JobRef("4000000", "unknown", time.time(), client.folder)
    client.slurm.cancel([pending, running, ended, unknown])
    client.wait_for(pending, JobState.CANCELLED)
    client.wait_for(running, JobState.CANCELLED)
    client.wait_for(ended, JobState.COMPLETED)
    calls = client.slurm.calls.count("scancel")
    client.slurm.cancel([pending, ended, unknown])
    assert client.slurm.calls.count("scancel") == calls


def test_a_job_that_requeues_itself_when_told_to_stop_stays_cancelled(client: Client) -> None:
    ref = client.submit('trap "scontrol requeue $SLURM_JOB_ID; echo rc=\\$?; exit 85" TERM; sleep 60 & wait')
    client.wait_for(ref, JobState.RUNNING)
    until((ref.run_dir / "logs/job.out").exists, "the script to begin")
    client.slurm.cancel([ref])
    client.wait_for(ref, JobState.CANCELLED)
    until(lambda: "rc=" in (ref.run_dir / "logs/job.out").read_text(), "the trap")
    assert "rc=1" in (ref.run_dir / "logs/job.out").read_text()
    assert client.wait_for(ref, JobState.CANCELLED).restarts == 0


def test_a_refusal_to_cancel_is_said(client: Client, commands: Path) -> None:
    ref = client.submit("true", "--hold")
    fake_command(
        commands,
        "scancel",
        'echo "scancel: error: Kill job error on job id 7: Access/permission denied" >&2; exit 210',
    )
    with pytest.raises(Rejected, match="Access/permission denied"):
        client.slurm.cancel([ref])
    (commands / "scancel").unlink()
    client.slurm.cancel([ref])


def test_a_recycled_id_is_not_ours(client: Client) -> None:
    """Without a comment of ours only user, time and folder tell."""
    ref = client.submit("true", "--hold")
    assert client.look(replace(ref, token="another")) is None
    by_hand = by_hand_job(client, "true", "--hold")
    assert client.look(by_hand) is not None
    assert client.look(replace(by_hand, submitted_at=time.time() + 3600)) is None
    assert client.look(replace(by_hand, run_dir=client.folder / "other")) is None
    assert client.look(replace(by_hand, submitted_at=time.time() + 200)) is not None, "clocks may differ by minutes"
    client.slurm.cancel([ref, by_hand])


def test_two_runs_with_the_same_job_id_are_kept_apart(client: Client) -> None:
    new = client.submit("true", "--hold")
    old = replace(new, token="old", submitted_at=new.submitted_at - 1e7)
    assert set(client.slurm.jobs([old, new], max_age=0)) == {new.token}
    client.slurm.cancel([old])
    assert client.wait_for(new, JobState.PENDING)
    client.slurm.cancel([new])


@needs_root
def test_a_job_of_another_user_is_not_ours(client: Client) -> None:
    folder = client.box.folder / "state"
    theirs = client.box.submit("sleep 60", "--output=/dev/null", "--chdir=/tmp", cwd=folder, user="nobody")
    client.box.wait_for(theirs, "RUNNING")
    ref = JobRef(theirs, "token", time.time(), Path("/tmp"))
    assert client.look(ref) is None
    client.slurm.cancel([ref])
    assert client.box.state(theirs) == "RUNNING"
    client.box.command("scancel", theirs)


def test_without_accounting_a_forgotten_job_is_unknown_but_was_seen(
    slurm_box: BoxFactory, enter: Callable[[Box], Client]
) -> None:
    client = enter(slurm_box(min_job_age=2))
    ref = client.submit("exit 7")
    client.wait_for(ref, JobState.FAILED)
    client.wait_until_forgotten(ref)
    for _ in range(3):
        assert client.look(ref) is None
    state, when = client.again().last_seen(ref) or (None, 0.0)
    assert state is JobState.FAILED and ref.submitted_at < when <= time.time()
    assert client.slurm.calls.count("sacct") == 1, "that accounting is off was remembered"
    assert client.slurm.warnings == []
    assert client.slurm.find(ref.token) is None


def test_with_accounting_a_forgotten_job_is_still_known(slurm_accounting: Box, enter: Callable[[Box], Client]) -> None:
    client = enter(slurm_accounting)
    again = client.submit('[ "${SLURM_RESTART_COUNT:-0}" = 1 ] || sleep 60')
    ref, killed, by_hand = client.submit("exit 7"), client.submit("sleep 60"), by_hand_job(client, "exit 5")
    client.wait_for(again, JobState.RUNNING)
    client.box.command("scontrol", "requeue", again.job_id)
    client.wait_for(killed, JobState.RUNNING)
    client.slurm.cancel([killed])
    client.wait_for(again, JobState.COMPLETED)
    refs = [ref, killed, by_hand, again]
    for one in refs:
        client.wait_until_forgotten(one)
    jobs = client.slurm.jobs(refs, max_age=0)
    assert {job.source for job in jobs.values()} == {"sacct"}
    assert (jobs[ref.token].state, jobs[ref.token].exit_code) == (JobState.FAILED, 7)
    assert (jobs[by_hand.token].state, jobs[by_hand.token].exit_code) == (JobState.FAILED, 5)
    assert jobs[killed.token].state is JobState.CANCELLED
    assert (jobs[again.token].state, jobs[again.token].restarts) == (JobState.COMPLETED, 1)

    asked = client.slurm.calls.count("sacct")
    assert client.slurm.jobs(refs, max_age=0) == jobs
    assert client.slurm.calls.count("sacct") == asked, "an end is an end: it is not asked for again"

    assert client.slurm.find(ref.token) == ref.job_id
    assert client.slurm.find("no-such-token") is None
    assert client.look(replace(ref, token="recycled")) is None
    assert client.look(replace(by_hand, token="recycled", run_dir=client.folder / "other")) is None
    assert client.look(replace(by_hand, token="of another time", submitted_at=time.time() + 3600)) is None


def test_an_accounting_that_fails_is_said_and_nothing_claimed(
    slurm_accounting: Box, enter: Callable[[Box], Client], commands: Path
) -> None:
    client = enter(slurm_accounting)
    gone = JobRef("4000000", "gone", time.time() - 60, client.folder)
    fake_command(commands, "sacct", 'echo "sacct: error: Sending PersistInit msg: Connection refused" >&2; exit 1')
    for terminal in (client.slurm, client.again()):
        assert terminal.jobs([gone]) == {}
        assert "Connection refused" in terminal.warnings[0]
    (commands / "sacct").unlink()
    assert client.slurm.jobs([gone], max_age=0) == {}
    assert client.slurm.warnings == []


def test_nodes_with_their_gpus_and_states(client: Client) -> None:
    holder = client.submit("sleep 60", "--partition=a800", "--gres=gpu:a800:3")
    where = client.wait_for(holder, JobState.RUNNING).where
    client.box.command("scontrol", "update", "nodename=gpu-a40-1", "state=drain", "reason=fan | it's hot")
    nodes = {node.name: node for node in client.slurm.nodes()}
    client.box.command("scontrol", "update", "nodename=gpu-a40-1", "state=resume")
    client.slurm.cancel([holder])
    assert set(nodes) == {"gpu-a800-1", "gpu-a800-2", "gpu-a40-1", "cpu-1"}
    assert [(g.gpu_type, g.count) for g in nodes[where].gpus] == [("a800", 4)]
    assert [(g.gpu_type, g.count) for g in nodes[where].gpus_used] == [("a800", 3)]
    assert nodes[where].usable and "a800" in nodes[where].partitions
    assert not nodes["gpu-a40-1"].usable and nodes["gpu-a40-1"].reason == "fan | it's hot"
    assert nodes["cpu-1"].gpus == () and nodes["cpu-1"].usable


def test_a_node_in_maintenance_is_not_usable(client: Client) -> None:
    reserve = "reservation=tests starttime=now duration=5 users=root flags=maint nodes=gpu-a40-1"
    client.box.command("scontrol", "create", *reserve.split())
    until(lambda: not {n.name: n for n in client.slurm.nodes()}["gpu-a40-1"].usable, "the maintenance to show")
    client.box.command("scontrol", "delete", "reservation=tests")
    until(lambda: {n.name: n for n in client.slurm.nodes()}["gpu-a40-1"].usable, "the maintenance to end")
