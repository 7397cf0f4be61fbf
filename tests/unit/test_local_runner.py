"""The local runner with real processes: jobs end, fail, wait and are stopped, and their state is true."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from dataclasses import replace

import pytest

from clusterctl.adapters import local, local_job, procfs
from clusterctl.errors import NoFit, NotFound, Rejected
from clusterctl.model import JobRef, JobState, Resources, Submission
from tests.local_box import ROOT, WAIT_FOR_GO, LocalBox, pids_in, wait_until
from trainers.failures import policy

# --- ends ---------------------------------------------------------------------------------------


def test_a_job_that_ends_well(box: LocalBox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "99")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("KEPT", "a b;c")
    ref = box.submit(
        'echo "$PWD|$CLUSTERCTL_JOB_ID|${SLURM_JOB_ID-none}|[$CUDA_VISIBLE_DEVICES]|$CUDA_DEVICE_ORDER|$KEPT"\n'
        "cat; echo oh >&2"
    )
    job = box.until(ref)
    assert (job.state, job.exit_code, job.reason, job.restarts) == (JobState.COMPLETED, 0, "", 0)
    assert box.out(ref) == f"{ref.run_dir}|{ref.job_id}|none|[]|PCI_BUS_ID|a b;c\n"
    assert (ref.run_dir / "logs/job.err").read_text() == "oh\n"
    assert job.submitted_at is not None and job.started_at is not None and job.ended_at is not None
    assert job.submitted_at <= job.started_at <= job.ended_at
    assert (job.where, job.time_limit, job.source) == (os.uname().nodename, 60, "local")
    assert str(box.root) not in (ref.run_dir / "local.json").read_text()


def test_a_job_that_fails(box: LocalBox) -> None:
    job = box.until(box.submit("exit 7"))
    assert (job.state, job.exit_code, job.signal, job.reason) == (JobState.FAILED, 7, None, "exit code 7")


def test_a_job_whose_shell_is_killed(box: LocalBox) -> None:
    job = box.until(box.submit("kill -9 $$"))
    assert (job.state, job.exit_code, job.signal, job.reason) == (
        JobState.FAILED,
        None,
        9,
        "killed by signal 9 (Killed)",
    )


def test_a_real_time_signal_has_no_name(box: LocalBox) -> None:
    job = box.until(box.submit("kill -40 $$"))
    assert (job.state, job.signal) == (JobState.FAILED, 40)


def test_exit_85_runs_it_again_and_appends_to_the_log(box: LocalBox) -> None:
    ref = box.submit("echo once; [[ $(wc -l < logs/job.out) -gt 10 ]] || exit 85")
    job = box.until(ref)
    assert (job.state, job.restarts, box.out(ref)) == (JobState.COMPLETED, 10, "once\n" * 11)


def test_there_is_an_end_to_running_it_again(box: LocalBox) -> None:
    job = box.until(box.submit("exit 85"))
    assert (job.state, job.restarts, job.reason) == (JobState.FAILED, 100, "asked for more than 100 restarts")


def test_what_a_job_leaves_behind_is_ended(box: LocalBox) -> None:
    ref = box.submit("sleep 60 & echo $! > pids")
    assert box.until(ref).state is JobState.COMPLETED
    assert not any(procfs.alive(process) for process in pids_in(ref.run_dir / "pids", 1))


def test_ids_count_up_and_tokens_find_them(box: LocalBox) -> None:
    first, second = box.submit("true"), box.submit("true")
    assert (first.job_id, second.job_id) == ("L1", "L2")
    assert box.local.find(second.token) == "L2"
    assert box.local.find("another") is None


def test_ids_are_unique_when_many_submit_at_once(box: LocalBox) -> None:
    code = "from pathlib import Path; from clusterctl.adapters import local_job as j\n"
    code += "for i in range(20): print(j.register('t', Path('.')))"
    children = [
        subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    ids = [word for child in children for word in child.communicate()[0].split()]
    assert sorted(ids) == sorted(f"L{n}" for n in range(1, 61))


def test_an_active_run_is_not_submitted_twice(box: LocalBox) -> None:
    ref = box.submit(WAIT_FOR_GO)
    again = Submission("run", ref.run_dir, "name", uuid.uuid4().hex, Resources())
    with pytest.raises(Rejected, match="this run is L1, which is"):
        box.local.submit(again)
    (ref.run_dir / "go").touch()
    box.until(ref)
    resumed = JobRef(box.local.submit(again), again.token, 0, ref.run_dir)
    assert box.until(resumed).state is JobState.COMPLETED
    assert box.local.jobs([ref]) == {}


def test_more_than_one_node_does_not_fit_and_leaves_nothing(box: LocalBox) -> None:
    with pytest.raises(NoFit, match="2 nodes wanted"):
        box.submit("true", nodes=2)
    assert not (box.root / "state").exists()
    assert not list(box.root.glob("run */local.json"))


def test_a_runner_that_cannot_start_is_told_and_forgotten(box: LocalBox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    with pytest.raises(Rejected, match="the local runner could not start: "):
        box.submit("true")
    assert not list(box.root.glob("run */local.json"))
    assert [path.name for path in (box.root / "state/clusterctl/local").iterdir()] == ["counter"]


def test_a_run_directory_may_be_moved_while_it_runs(box: LocalBox) -> None:
    ref = box.submit(WAIT_FOR_GO)
    box.until(ref, JobState.RUNNING)
    moved = replace(ref, run_dir=ref.run_dir.rename(box.root / "moved"))
    assert box.job(moved).state is JobState.RUNNING
    (moved.run_dir / "go").touch()
    assert box.until(moved).state is JobState.COMPLETED


def test_a_job_submitted_by_a_job_outlives_it(box: LocalBox) -> None:
    run_dir, token = box.run_dir(WAIT_FOR_GO), uuid.uuid4().hex
    inner = box.remember("L2", token, run_dir)
    (box.root / "command.json").write_text(json.dumps(box.submit_command(run_dir, token)))
    start = "import json, os; c = json.load(open('../command.json')); os.execv(c[0], c)"
    outer = box.submit(f'PYTHONPATH="{ROOT}" "{sys.executable}" -c "{start}"')
    assert box.until(outer).state is JobState.COMPLETED
    assert box.job(inner).state is JobState.RUNNING
    (run_dir / "go").touch()
    assert box.until(inner).state is JobState.COMPLETED


def test_the_runner_is_light() -> None:
    code = "import sys, clusterctl.adapters.local_runner; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    names = {name.partition(".")[0] for name in loaded.stdout.split()}
    assert not names & {"pydantic", "yaml", "torch", "jinja2", "rich", "typer", "pynvml"}


# --- time limit ---------------------------------------------------------------------------------


def test_time_limit_usr1_to_the_shell_alone_then_the_run_goes_on(box: LocalBox) -> None:
    # Ignored signals are inherited, and bash cannot trap what was ignored when it began.
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        ref = box.submit(
            "[[ -e saved ]] && exit 0\n"
            "sleep 30 & child=$!\n"
            "trap 'kill -0 $child && echo child lives; touch saved; exit 85' USR1\n"
            "wait",
            time_limit=10,
            signal_lead=9,
        )
    finally:
        signal.signal(signal.SIGUSR1, before)
    job = box.until(ref)
    assert (job.state, job.restarts, box.out(ref)) == (JobState.COMPLETED, 1, "child lives\n")


def test_time_limit_term_then_kill_of_the_whole_tree(box: LocalBox) -> None:
    script = (
        "trap 'echo usr1' USR1; trap 'echo term' TERM; setsid bash -c \"trap '' TERM; echo \\$\\$ > pids; sleep 60\" &"
    )
    ref = box.submit(f"{script}\nwhile true; do sleep 0.1; done", time_limit=2, signal_lead=1)
    survivors = pids_in(ref.run_dir / "pids", 1)
    job = box.until(ref)
    assert (job.state, job.signal, job.reason) == (JobState.TIMEOUT, 9, "it reached its time limit")
    assert box.out(ref) == "usr1\nterm\n"
    assert not any(procfs.alive(process) for process in survivors)


# --- cancel -------------------------------------------------------------------------------------

STRAYS = """
setsid bash -c 'trap "" TERM HUP; echo $$ >> pids; while true; do sleep 0.1; done' &
until [[ -s pids ]]; do sleep 0.02; done
(setsid env -i PATH="$PATH" bash -c 'echo $$ >> pids; sleep 60' &)
sleep 60
"""
"""A job with a grandchild in a session of its own that is deaf to TERM, and a daemon without our environment."""


def test_cancel_ends_every_process(box: LocalBox) -> None:
    ref = box.submit(STRAYS)
    strays = pids_in(ref.run_dir / "pids", 2)
    box.local.cancel([ref])
    job = box.job(ref)
    assert (job.state, job.reason) == (JobState.CANCELLED, "cancelled while it ran")
    assert not any(procfs.alive(process) for process in strays)
    wait_until(lambda: procfs.job_processes(ref.token) == [])


def test_cancel_while_it_waits(box: LocalBox) -> None:
    first = box.submit(WAIT_FOR_GO)
    second = box.submit("touch ran", after=(first.job_id,))
    wait_until(lambda: box.job(second).reason.startswith("Dependency"))
    box.local.cancel([second])
    assert (box.job(second).state, box.job(second).reason) == (JobState.CANCELLED, "cancelled while it waited")
    assert not (second.run_dir / "ran").exists()
    assert box.job(first).state is JobState.RUNNING


def test_cancel_of_ended_jobs_changes_nothing(box: LocalBox) -> None:
    ref = box.submit("exit 3")
    before = box.until(ref)
    box.local.cancel([ref, replace(ref, token="of another hand-over")])
    assert box.job(ref) == before


def test_cancel_when_the_runner_is_dead(box: LocalBox) -> None:
    ref = box.submit(STRAYS)
    deaf, daemon = pids_in(ref.run_dir / "pids", 2)
    box.kill_runner(ref)
    box.local.cancel([ref])
    assert box.job(ref).state is JobState.CANCELLED
    assert not procfs.alive(deaf)
    # Killed as it was, its log is all that can tell the next attempt why.
    assert policy.look(ref.run_dir, 137, "").cause.name == "cancelled"
    # Without the runner that adopted it and without the job's environment, nothing tells whose the daemon is.
    os.kill(daemon.pid, signal.SIGKILL)


def test_cancel_when_the_runner_is_frozen(box: LocalBox) -> None:
    ref = box.submit(WAIT_FOR_GO)
    box.until(ref, JobState.RUNNING)
    os.kill(box.local_json(ref).runner.pid, signal.SIGSTOP)
    box.local.cancel([ref])
    assert box.job(ref).reason == "cancelled while it ran"


def test_cancel_when_the_runner_does_not_listen(box: LocalBox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_RUNNER_MARGIN", 0.0)
    ref = box.submit("true")
    box.until(ref)
    deaf = "import signal; signal.signal(signal.SIGUSR2, signal.SIG_IGN); print(flush=True); signal.pause()"
    env = os.environ | {procfs.JOB_VARIABLE: ref.token}
    with subprocess.Popen([sys.executable, "-c", deaf], env=env, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        box.forge(ref, phase="running", state=None, runner=procfs.identify(child.pid))
        box.local.cancel([ref])
        assert child.wait() == -signal.SIGKILL
    assert box.job(ref).state is JobState.CANCELLED


# --- dependencies -------------------------------------------------------------------------------


def test_a_dependency_that_ends_well(box: LocalBox) -> None:
    first = box.submit(f"{WAIT_FOR_GO}; touch ../first")
    second = box.submit("ls ../first", after=(first.job_id,))
    job = box.until(second, JobState.PENDING)
    wait_until(lambda: box.job(second).reason == "Dependency: L1 is RUNNING")
    assert job.state is JobState.PENDING
    (first.run_dir / "go").touch()
    assert box.until(second).state is JobState.COMPLETED


def test_a_dependency_that_fails(box: LocalBox) -> None:
    first = box.submit("exit 1")
    second = box.submit("touch ran", after=(first.job_id,))
    third = box.submit("touch ran", after=(second.job_id,))
    job = box.until(second)
    assert (job.state, job.reason) == (JobState.CANCELLED, "DependencyNeverSatisfied: L1 ended FAILED")
    assert box.until(third).state is JobState.CANCELLED
    assert not list(box.root.glob("run */ran"))


def test_a_dependency_that_nobody_knows(box: LocalBox) -> None:
    for job_id in ("L5", "5", "../counter"):
        with pytest.raises(Rejected, match="is not known"):
            box.submit("true", after=(job_id,))
    with pytest.raises(NotFound):
        local_job.entry("L5")
