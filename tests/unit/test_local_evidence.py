"""The local runner when terminal, runner or machine go: what is left on disk and in /proc says what became of a job."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import uuid
from dataclasses import replace

import pytest

from clusterctl.adapters import procfs
from clusterctl.errors import Rejected, Unavailable
from clusterctl.model import JobRef, JobState, Resources, Submission
from tests.local_box import ROOT, WAIT_FOR_GO, LocalBox, wait_until

# --- terminal, kill -9, shut-down ---------------------------------------------------------------


@pytest.mark.parametrize("how", ["hang up", "Ctrl-C"])
def test_the_terminal_goes_and_the_job_stays(box: LocalBox, how: str) -> None:
    run_dir, token = box.run_dir(f"{WAIT_FOR_GO}; tty; echo done"), uuid.uuid4().hex
    command = box.submit_command(run_dir, token, then="stay")
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execv(command[0], command)
    ref = box.remember("L1", token, run_dir)
    submitter = procfs.identify(pid)
    assert submitter is not None
    said = b""
    while not said.endswith(b"\n"):
        said += os.read(terminal, 100)
    assert said == b"L1\r\n"
    if how == "hang up":
        os.close(terminal)
    else:
        os.write(terminal, b"\x03")
    wait_until(lambda: not procfs.alive(submitter))
    os.waitpid(pid, 0)
    assert box.until(ref, JobState.RUNNING).reason == ""
    (run_dir / "go").touch()
    assert box.until(ref).state is JobState.COMPLETED
    assert box.out(ref) == "not a tty\ndone\n"


ATTEMPT = """
note() {{ echo "{{ \\"schema\\": 1, \\"attempt\\": 1, $1 }}" >> attempts.jsonl; }}
note '"event": "begin", "job_id": "{job_id}", "host": "h", "time": 1.0'
until [[ -e go ]]; do sleep 0.05; done
note '"event": "end", "time": 2.0, "exit_code": {code}, "outcome": "o", "decision": "{decision}", "why": "so it is"'
"""
"""A job that records its own beginning and end, as job.sh does through trainers.guard."""


@pytest.mark.parametrize(
    ("decision", "code", "state"),
    [("done", 0, JobState.COMPLETED), ("stop", 3, JobState.FAILED), ("requeue", 85, JobState.FAILED)],
)
def test_kill_9_of_the_runner_and_the_job_goes_on(box: LocalBox, decision: str, code: int, state: JobState) -> None:
    ref = box.submit(ATTEMPT.format(job_id="L1", code=code, decision=decision))
    wait_until((ref.run_dir / "attempts.jsonl").exists)
    box.kill_runner(ref)
    job = box.job(ref)
    assert (job.state, job.reason.partition(":")[0]) == (JobState.RUNNING, "its runner was killed")
    (ref.run_dir / "go").touch()
    job = box.until(ref)
    assert (job.state, job.exit_code, job.ended_at) == (state, code, 2.0)


def test_kill_9_of_runner_and_job(box: LocalBox) -> None:
    ref = box.submit(WAIT_FOR_GO)
    box.until(ref, JobState.RUNNING)
    box.kill_runner(ref)
    procfs.end_all(ref.token, grace=0)
    job = box.job(ref)
    assert (job.state, job.reason) == (JobState.FAILED, "killed: runner and job ended without a word")


def test_kill_9_of_a_waiting_runner(box: LocalBox) -> None:
    first = box.submit(WAIT_FOR_GO)
    second = box.submit("touch ran", after=(first.job_id,))
    box.kill_runner(second)
    job = box.job(second)
    assert (job.state, job.reason.partition(":")[0]) == (JobState.FAILED, "killed")


def test_an_end_recorded_for_another_job_proves_nothing(box: LocalBox) -> None:
    ref = box.submit(ATTEMPT.format(job_id="L99", code=0, decision="done"))
    wait_until((ref.run_dir / "attempts.jsonl").exists)
    box.kill_runner(ref)
    (ref.run_dir / "go").touch()
    assert box.until(ref).state is JobState.FAILED


def test_term_to_the_runner_lets_the_job_save_and_does_not_start_it_again(box: LocalBox) -> None:
    ref = box.submit(f"trap 'echo saved; exit 85' TERM; touch here; {WAIT_FOR_GO}")
    wait_until((ref.run_dir / "here").exists)
    os.kill(box.local_json(ref).runner.pid, signal.SIGTERM)
    job = box.until(ref)
    assert (job.state, job.exit_code, box.out(ref)) == (JobState.NODE_FAIL, 85, "saved\n")


# --- whose process is it --------------------------------------------------------------------------


@pytest.fixture
def running_record(box: LocalBox) -> JobRef:
    """The record of a job that runs, by an ended one: this process poses as its runner."""
    ref = box.submit("true")
    box.until(ref)
    wait_until(lambda: procfs.job_processes(ref.token) == [])
    box.forge(ref, phase="running", state=None, exit_code=None, ended_at=None, runner=procfs.myself())
    return ref


def test_a_number_that_was_reused_is_another_process(box: LocalBox, running_record: JobRef) -> None:
    assert box.job(running_record).state is JobState.RUNNING
    box.forge(running_record, runner=replace(procfs.myself(), started=procfs.myself().started - 1))
    assert box.job(running_record).state is JobState.FAILED


def test_after_a_reboot(box: LocalBox, running_record: JobRef) -> None:
    box.forge(running_record, place=replace(procfs.here(), boot_id="another", pid_namespace="another"))
    job = box.job(running_record)
    assert (job.state, job.reason) == (JobState.NODE_FAIL, "the machine was restarted meanwhile")
    (running_record.run_dir / "attempts.jsonl").write_text(
        '{"event": "begin", "attempt": 1, "job_id": "L1", "time": 1}\n'
        '{"event": "end", "attempt": 1, "time": 2, "exit_code": 0, "decision": "done"}\n'
    )
    assert box.job(running_record).state is JobState.COMPLETED


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (replace(procfs.here(), host="far"), "runs on host far"),
        (replace(procfs.here(), host="far", boot_id="another"), "runs on host far"),
        (replace(procfs.here(), pid_namespace="pid:[1]"), "runs in another container"),
    ],
)
def test_out_of_sight_is_unknown(box: LocalBox, running_record: JobRef, place: procfs.Place, words: str) -> None:
    box.forge(running_record, place=place)
    job = box.job(running_record)
    assert job.state is JobState.UNKNOWN
    assert words in job.reason
    with pytest.raises(Unavailable, match=words):
        box.local.cancel([running_record])
    box.forge(running_record, phase="ended", state=JobState.COMPLETED)
    assert box.job(running_record).state is JobState.COMPLETED


def test_zombies_are_dead() -> None:
    child = subprocess.Popen(["true"])
    process = procfs.identify(child.pid)
    assert process is not None
    wait_until(lambda: not procfs.alive(process))
    assert procfs.identify(child.pid) == process
    child.wait()
    assert procfs.identify(child.pid) is None


def test_a_torn_or_foreign_record_is_unknown(box: LocalBox) -> None:
    ref = box.submit("true")
    box.until(ref)
    path = ref.run_dir / "local.json"
    whole = path.read_bytes()
    wrong = [b"[]", b"null", b'{"schema": 1}', b"\xff\xfe", whole.replace(b'"ended"', b'"dreaming"')]
    wrong += [whole.replace(b'"schema": 1', b'"schema": 2'), whole.replace(b'"COMPLETED"', b'"DONE"')]
    for content in [whole[:length] for length in range(0, len(whole.rstrip()), 7)] + wrong:
        path.write_bytes(content)
        job = box.job(ref)
        assert (job.state, job.reason.partition(" (")[0]) == (JobState.UNKNOWN, "local.json is damaged")
    box.local.cancel([ref])
    with pytest.raises(Rejected, match="damaged"):
        box.local.submit(Submission("run", ref.run_dir, "name", "other", Resources()))
    path.unlink()
    assert box.local.jobs([ref]) == {}
