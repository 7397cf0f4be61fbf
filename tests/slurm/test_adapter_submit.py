"""Submitting to a real Slurm: what arrives in the job, what is refused, and an sbatch that fails on the way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from clusterctl.adapters.slurm_words import explain_reason
from clusterctl.errors import Rejected, Unavailable, UsageProblem
from clusterctl.model import JobState
from tests.slurm.box import Box
from tests.slurm.client import Client, count_calls, fake_command


def test_a_job_runs_in_its_run_directory(client: Client) -> None:
    ref = client.submit('printf "%s\\n" "$PWD" "$SLURM_SUBMIT_DIR"; echo oops >&2')
    job = client.wait_for(ref, JobState.COMPLETED)
    assert (job.exit_code, job.signal, job.where, job.restarts) == (0, None, "cpu-1", 0)
    assert (job.started_at or 0) <= (job.ended_at or 0) and job.time_limit == 3600
    assert (ref.run_dir / "logs/job.out").read_text() == f"{ref.run_dir}\n{ref.run_dir}\n"
    assert (ref.run_dir / "logs/job.err").read_text() == "oops\n"


def test_exit_codes_and_signals(client: Client) -> None:
    seven, killed = client.submit("exit 7"), client.submit("kill -9 $$")
    failed = client.wait_for(seven, JobState.FAILED)
    assert (failed.exit_code, failed.signal) == (7, None)
    assert explain_reason(failed.reason) == "ended with an exit code that is not 0"
    failed = client.wait_for(killed, JobState.FAILED)
    assert (failed.exit_code, failed.signal) == (0, 9)


def test_an_outer_job_and_defaults_of_the_user_do_not_reach_the_job(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "SLURM_JOB_ID": "4711",
        "SLURM_NTASKS": "64",
        "SLURM_MEM_PER_CPU": "1",
        "SBATCH_PARTITION": "no-such-partition",
        "SBATCH_EXPORT": "NONE",
        "SQUEUE_STATES": "FAILED",
        "SQUEUE_PARTITION": "a40",
        "SLURM_TIME_FORMAT": "relative",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OURS", 'it\'s "kept", 100 %')
    ref = client.submit('echo "$OURS"; echo "$SLURM_NTASKS $SLURM_TIME_FORMAT."')
    client.wait_for(ref, JobState.COMPLETED)
    assert (ref.run_dir / "logs/job.out").read_text() == 'it\'s "kept", 100 %\n .\n'


@pytest.mark.parametrize(
    ("header", "words", "hint"),
    [
        ("--partition=no-such", "invalid partition", "partitions here: a40, a800, cpu, debug, scavenge, urgent"),
        ("--partition=a40 --gres=gpu:a800:1", "Requested node configuration is not available", "clusterctl gpus"),
        ("--mem=9000G", "Memory specification can not be satisfied", "less memory"),
        ("--gres=gpu:h100:1", "Requested node configuration is not available", "clusterctl gpus"),
        ("--constraint=no-such", "Invalid feature specification", "constraint"),
        ("--time=yesterday", "Invalid --time specification", ""),
    ],
)
def test_what_slurm_refuses_comes_in_its_words(client: Client, header: str, words: str, hint: str) -> None:
    with pytest.raises(Rejected) as refused:
        client.submit("true", *header.split(" "))
    assert words in refused.value.message and "\n" not in refused.value.message
    assert "sbatch" not in refused.value.message
    assert hint in refused.value.hint


@pytest.mark.parametrize(
    ("header", "words", "hint"),
    [
        ("--account=no-such", "Invalid account", "set `account`"),
        ("--qos=no-such", "Invalid qos specification", "set `qos`"),
    ],
)
def test_what_accounting_refuses(
    slurm_accounting: Box, enter: Callable[[Box], Client], header: str, words: str, hint: str
) -> None:
    with pytest.raises(Rejected) as refused:
        enter(slurm_accounting).submit("true", header)
    assert words in refused.value.message
    assert hint in refused.value.hint


@pytest.mark.parametrize("name", ["50% done", "back\\slash"])
def test_a_folder_that_slurm_cannot_write_to_is_refused_before_sbatch(client: Client, name: str) -> None:
    client.folder = client.folder / name
    with pytest.raises(UsageProblem, match="Slurm cannot write into a folder with"):
        client.submit("true")
    assert client.slurm.calls == []


def test_a_child_waits_for_its_parent_and_dies_with_it(client: Client) -> None:
    parent = client.submit('while [ ! -e go ]; do sleep 0.1; done; exit "$(cat go)"')
    child = client.submit("true", after=[parent])
    job = client.wait_for(child, JobState.PENDING)
    assert explain_reason(job.reason) == "waiting for another job to end"
    (parent.run_dir / "code").write_text("1")
    (parent.run_dir / "code").rename(parent.run_dir / "go")
    client.wait_for(parent, JobState.FAILED)
    job = client.wait_for(child, JobState.CANCELLED)
    assert explain_reason(job.reason) == "will never start: the job before it did not succeed"
    assert job.started_at is None and not (child.run_dir / "logs/job.out").exists()


def test_an_sbatch_whose_answer_was_lost_is_found_by_its_token(client: Client, commands: Path) -> None:
    log = commands / "log"
    fake_command(
        commands,
        "sbatch",
        f'echo x >> "{log}"; "$REAL" "$@" >/dev/null\n'
        'echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation" >&2; exit 1',
    )
    ref = client.submit("true")
    assert log.read_text() == "x\n"
    assert client.with_token(ref.token) == [ref.job_id]


def test_an_sbatch_that_never_reached_slurm_is_not_called_queued_nor_repeated(client: Client, commands: Path) -> None:
    log = commands / "log"
    fake_command(
        commands,
        "sbatch",
        f'echo x >> "{log}"\n'
        'echo "sbatch: error: Batch job submission failed: Unable to contact slurm controller" >&2; exit 1',
    )
    submission = client.prepare("true")
    with pytest.raises(Unavailable, match="not known whether the job was queued") as unknown:
        client.slurm.submit(submission)
    assert submission.run_id in unknown.value.hint
    assert log.read_text() == "x\n"
    assert client.slurm.find(submission.token) is None


def test_without_sbatch_nothing_is_called(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    submission = client.prepare("true")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match="sbatch is not installed"):
        client.slurm.submit(submission)


def test_a_missing_slurm_conf_is_named_at_once(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CONF", "/nonexistent/slurm.conf")
    with pytest.raises(Unavailable, match=r"SLURM_CONF names a file .*nothing was submitted"):
        client.slurm.submit(client.prepare("true"))
    assert client.slurm.calls == []


def test_a_submission_is_seen_at_once_by_those_who_asked_just_before(client: Client, commands: Path) -> None:
    log = count_calls(commands)
    first = client.submit("sleep 60")
    assert first.token in client.slurm.jobs([first], max_age=600)
    second = client.submit("sleep 60")
    assert set(client.again().jobs([first, second], max_age=600)) == {first.token, second.token}
    assert log.read_text().split().count("squeue") == 2
    client.slurm.cancel([first, second])
