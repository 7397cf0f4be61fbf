"""Whole runs on a real Slurm: a real model trains, and the commands tell the truth about it."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.project import CLUSTERCTL, Project, add_pipeline, check_each_started_where_the_one_before_ended, make_project
from tests.slurm.box import Box, until
from tests.train.conftest import losses

NAME = 'it\'s a "x" #5 100% $(touch pwned) `id` \\ 狼人杀'


@pytest.fixture(scope="module")
def cluster() -> Iterator[Box]:
    """A cluster of our own: these tests drain and kill its nodes."""
    box = Box(slurmd_timeout=5)
    try:
        box.up()
        yield box
    finally:
        box.down()


@pytest.fixture
def project(cluster: Box, tiny_model: Path, tmp_path: Path) -> Project:
    return make_project(tmp_path / "a'; echo foo $(x)", cluster.env, tiny_model)


LONG = ("--set", "optim.max_steps=300", "--set", "output.save_steps=25")


@pytest.fixture(scope="module")
def undisturbed(cluster: Box, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The weights that a run of LONG ends with when nothing happens to it."""
    run = make_project(tmp_path_factory.mktemp("undisturbed") / "project", cluster.env, tiny_model).submit(*LONG)
    run.wait_for("COMPLETED")
    return run.weights


def test_submit_run_finish(project: Project, cluster: Box) -> None:
    dry = project.cli("submit", "mine.yaml", "--name", NAME, "--dry-run")
    assert dry.code == 0, dry.err
    assert not (project.folder / "logs").exists()

    run = project.submit("--name", NAME)

    batch = cluster.command("scontrol", "write", "batch_script", run.job_id, "-").stdout
    assert batch.rstrip("\n") == dry.out.rstrip("\n") == (run.run_dir / "job.sh").read_text().rstrip("\n")
    assert cluster.command("squeue", "-h", "-j", run.job_id, "-o", "%j").stdout.strip() == NAME

    done = run.wait_for("COMPLETED")
    assert done["progress"]["step"] == done["progress"]["max_steps"] == 12
    assert done["where"] == "cpu-1"
    for name in (
        "checkpoints",
        "final_model",
        "logs",
        "tensorboard",
        "training.log",
        "training_metrics.json",
        "train_command.txt",
        "environment_info.txt",
        "training_curves.png",
        "run.yaml",
        "record.json",
    ):
        assert (run.run_dir / name).exists(), name
    metrics = json.loads((run.run_dir / "training_metrics.json").read_text())
    assert metrics["last_loss"] < metrics["first_loss"]
    assert not list(project.folder.rglob("pwned"))

    table = project.cli("status").out
    assert "COMPLETED" in table
    assert "12/12" in table
    tail = project.cli("tail", run.job_id, "-n", "3")
    assert "training finished" in tail.out
    again = project.cli("resume", run.run_id)
    assert (again.code, "has finished" in again.err) == (5, True)


def test_tail_from_before_the_start_to_the_end(project: Project, cluster: Box) -> None:
    cluster.command("scontrol", "update", "NodeName=cpu-1", "State=DRAIN", "Reason=test")
    run = project.submit()
    early = project.cli("tail", run.run_id)
    assert (early.code, "no log yet" in early.err, "PENDING" in early.err) == (6, True, True)
    follower = project.start("tail", "-f", run.run_id)
    assert follower.stdout is not None
    first = follower.stdout.readline()
    cluster.command("scontrol", "update", "NodeName=cpu-1", "State=RESUME")
    out, err = follower.communicate(timeout=120)
    assert follower.returncode == 0, out + err
    lines = out.splitlines()
    assert "PENDING" in first
    assert any(line.startswith("=== attempt 1") for line in lines)
    assert "COMPLETED" in lines[-1]


def test_cancel_while_pending_and_while_running(project: Project, cluster: Box) -> None:
    cluster.command("scontrol", "update", "NodeName=cpu-1", "State=DRAIN", "Reason=test")
    waiting = project.submit()
    assert project.state(waiting.run_id)["state"] == "PENDING"
    assert project.cli("cancel", waiting.run_id).code == 0
    assert project.state(waiting.run_id)["state"] == "CANCELLED"
    cluster.command("scontrol", "update", "NodeName=cpu-1", "State=RESUME")

    running = project.submit("--set", "optim.max_steps=100000")
    running.wait_for_step(5)
    answer = project.cli("cancel", running.run_id)
    assert (answer.code, "cancelled while RUNNING" in answer.out) == (0, True)
    running.wait_for("CANCELLED")
    # Cancelled means cancelled: nothing of it comes back by itself.
    cluster.wait_for(running.job_id, "CANCELLED")
    assert "ended already" in project.cli("cancel", running.run_id).out

    resumed = project.cli("resume", running.run_id)
    assert resumed.code == 0, resumed.err
    until(lambda: len(running.attempts) > 2, "a second attempt")
    assert project.cli("cancel", running.run_id).code == 0


def test_usr1_saves_requeues_and_ends_bit_equal(project: Project, cluster: Box, undisturbed: str) -> None:
    """What Slurm does before the time limit, at a chosen step; the limit itself is the next test."""
    run = project.submit(*LONG)
    run.wait_for_step(20)
    cluster.command("scancel", "--batch", "--signal=USR1", run.job_id)
    until(lambda: len(run.attempts) >= 2, "the first attempt's end")
    assert run.attempts[1]["decision"] == "requeue"
    waiting = run.wait_for("PENDING", "RUNNING", "COMPLETED")
    if waiting["state"] == "PENDING":
        assert "begins again" in waiting["why"]
    run.wait_for("COMPLETED")
    assert [line["event"] for line in run.attempts] == ["begin", "end", "begin", "end"]
    assert run.weights == undisturbed
    log = (run.run_dir / "logs/job.out").read_text()
    assert "=== attempt 1" in log
    assert "=== attempt 2" in log


def test_the_time_limit_itself_requeues(project: Project, cluster: Box) -> None:
    """Slurm's limits are whole minutes, and it may warn up to a minute early: also before training begins."""
    run = project.submit(
        "--set", "optim.max_steps=1000000", "--set", "profile.time=1:00", "--set", "profile.signal_lead=20"
    )
    until(lambda: len(run.attempts) >= 2, "the warning before the limit", timeout=120)
    end = run.attempts[1]
    assert (end["outcome"], end["decision"]) == ("saved", "requeue")
    until(lambda: len(run.attempts) >= 3, "the second attempt", timeout=60)
    assert run.attempts[2]["checkpoint"] > 0
    assert project.cli("cancel", run.run_id).code == 0


def test_preemption_requeues_and_ends_bit_equal(project: Project, cluster: Box, undisturbed: str) -> None:
    run = project.submit(*LONG, "--set", "profile.partition=scavenge")
    run.wait_for_step(10)
    node = project.state(run.run_id)["where"]
    urgent = cluster.submit("sleep 3", "--partition=urgent", "--exclusive", f"--nodelist={node}", cwd=project.folder)
    until(lambda: len(run.attempts) >= 3, "the attempt after preemption")
    cluster.wait_for(urgent, "COMPLETED", "RUNNING")
    run.wait_for("COMPLETED")
    assert run.weights == undisturbed


def test_node_death_moves_the_job_and_ends_bit_equal(project: Project, cluster: Box, undisturbed: str) -> None:
    run = project.submit(*LONG, "--set", "profile.partition=a800")
    run.wait_for_step(60)
    node = project.state(run.run_id)["where"]
    cluster.kill_node(node)
    until(lambda: len([a for a in run.attempts if a["event"] == "begin"]) >= 2, "the attempt elsewhere", timeout=150)
    done = run.wait_for("COMPLETED")
    cluster.start_node(node)
    assert done["where"] != node
    assert run.attempts[1]["checkpoint"] >= 25
    assert run.weights == undisturbed


@pytest.mark.parametrize(
    ("launcher", "strategy"), [("torchrun", "ddp"), ("deepspeed", "zero3"), ("accelerate", "zero2")]
)
def test_two_nodes_train_as_one(project: Project, cluster: Box, launcher: str, strategy: str) -> None:
    """One process on each of two (virtual) nodes does, bit for bit, what two processes on one node do."""
    both = ["profile.partition=a800", f"profile.launcher={launcher}", f"profile.strategy={strategy}"]
    runs = [
        project.submit(*(word for value in (*both, shape) for word in ("--set", value)))
        for shape in ("profile.nodes=2", "profile.processes_per_node=2")
    ]
    for run in runs:
        assert run.wait_for("COMPLETED", timeout=240)["progress"]["step"] == 12
        assert json.loads((run.run_dir / "training_metrics.json").read_text())["world_size"] == 2
    jobs = ",".join(run.job_id for run in runs)
    nodes = cluster.command("squeue", "-h", "-t", "all", "-S", "i", "-j", jobs, "-o", "%D").stdout.split()
    assert nodes == ["2", "1"]
    assert losses(runs[0].run_dir) == losses(runs[1].run_dir)
    assert runs[0].weights == runs[1].weights


def test_every_stage_of_a_pipeline_starts_bit_equal_from_the_one_before(
    project: Project, cluster: Box, tiny_model: Path
) -> None:
    """cpt, sft and dpo as dependent jobs, submitted at once."""
    add_pipeline(project, tiny_model)
    runs = project.submit_all(recipe="line.yaml")
    after = [json.loads((run.run_dir / "record.json").read_text())["after"] for run in runs]
    assert after == [[], [runs[0].run_id], [runs[1].run_id]]
    assert project.state(runs[2].run_id)["why"] == "waiting for another job to end"
    runs[-1].wait_for("COMPLETED", timeout=300)
    check_each_started_where_the_one_before_ended(runs)


def test_a_failed_stage_never_starts_the_next(project: Project, cluster: Box) -> None:
    (project.folder / "both.yaml").write_text(
        "profile: cpu\npipeline:\n  - {recipe: mine.yaml}\n  - {recipe: mine.yaml, name: again}\n"
    )
    # The data vanish between submission and start: the first stage fails at once.
    cluster.command("scontrol", "update", "NodeName=cpu-1", "State=DRAIN", "Reason=test")
    second = project.submit(recipe="both.yaml")
    [first_id] = json.loads((second.run_dir / "record.json").read_text())["after"]
    (project.folder / "data.csv").rename(project.folder / "gone.csv")
    cluster.command("scontrol", "update", "NodeName=cpu-1", "State=RESUME")
    until(lambda: project.state(first_id)["state"] == "FAILED", "the first stage to fail")
    assert "no such file" in project.state(first_id)["why"]
    until(lambda: project.state(second.run_id)["state"] == "CANCELLED", "the second to be given up")
    assert not (second.run_dir / "attempts.jsonl").exists()
    (project.folder / "gone.csv").rename(project.folder / "data.csv")


def test_after_waits_for_a_run(project: Project, cluster: Box) -> None:
    first = project.submit()
    second = project.submit("--after", first.run_id)
    assert project.state(second.run_id)["why"] == "waiting for another job to end"
    second.wait_for("COMPLETED")
    assert project.state(first.run_id)["state"] == "COMPLETED"
    third = project.submit("--after", first.run_id)
    third.wait_for("COMPLETED", "RUNNING")


def test_an_unknown_partition_is_refused_and_leaves_nothing(project: Project, cluster: Box) -> None:
    answer = project.cli("submit", "mine.yaml", "--set", "profile.partition=nowhere")
    assert answer.code == 5, answer.err
    assert "partition" in answer.err
    assert "a800" in answer.err
    assert not list((project.folder / "logs").glob("*"))


CANARY = "canary-5f3a9c"


def test_secrets_are_found_nowhere(project: Project, cluster: Box) -> None:
    secrets = Path(project.env["HOME"]) / ".config/clusterctl/secrets.env"
    secrets.parent.mkdir(parents=True)
    secrets.write_text(f"WANDB_API_KEY={CANARY}-file\n")
    secrets.chmod(0o600)
    key = {"SWANLAB_API_KEY": f"{CANARY}-env"}
    words = ("mine.yaml", "--set", "optim.max_steps=100000")
    dry = project.cli("submit", *words, "--dry-run", **key)
    answer = project.cli("submit", *words, "--json", **key)
    assert answer.code == 0, answer.out
    run_id, run_dir = (answer.json["data"]["runs"][0][k] for k in ("run_id", "run_dir"))
    until(lambda: "training" in project.state(run_id)["progress"]["phase"], "training")

    environments = b""
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # processes end, and some belong to nobody we may look at
            environments += path.read_bytes()
    assert f"{CANARY}-env".encode() in environments, "the key did not reach the job"
    assert f"{CANARY}-file".encode() in environments, "the key of the file did not reach the job"

    job_id = answer.json["data"]["runs"][0]["job_id"]
    processes = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    job = cluster.command("scontrol", "show", "job", str(job_id)).stdout
    assert project.cli("cancel", run_id).code == 0
    until(lambda: project.state(run_id)["state"] == "CANCELLED", "the end")
    for text in (dry.out, dry.err, answer.out, processes, job):
        assert CANARY not in text
    for path in Path(run_dir).rglob("*"):
        if path.is_file():
            assert CANARY.encode() not in path.read_bytes(), path


def test_the_script_runs_by_hand(project: Project, cluster: Box) -> None:
    run = project.submit()
    run.wait_for("COMPLETED")
    moved = project.folder / "moved here"
    run.run_dir.rename(moved)
    job = cluster.command("sbatch", "--parsable", "job.sh", cwd=moved).stdout.strip()
    cluster.wait_for(job, "COMPLETED", timeout=120)
    attempts = [json.loads(line) for line in (moved / "attempts.jsonl").read_text().splitlines()]
    assert attempts[-1]["decision"] == "done"


def test_run_inside_an_allocation_starts_on_its_node(project: Project, cluster: Box) -> None:
    words = shlex.join([str(CLUSTERCTL), "run", "mine.yaml", "--srun", "--json"])
    argv = ["salloc", "--quiet", "--partition=cpu", "--nodes=1", "--mem=1G", "bash", "-c", words]
    done = subprocess.run(argv, cwd=project.folder, env=project.env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    [ended] = json.loads(done.stdout.splitlines()[-1])["data"]
    assert ended["state"] == "COMPLETED"
    assert "SLURM" not in done.stderr


def test_killed_inside_slurm_is_a_failure_with_its_signal(project: Project, cluster: Box) -> None:
    run = project.submit("--set", "optim.max_steps=100000")
    run.wait_for_step(3)
    [pid] = [
        int(p.parent.name)
        for p in Path("/proc").glob("[0-9]*/cmdline")
        if b"trainers\0" in (text := p.read_bytes())
        and str(run.run_dir).encode() in text
        and b"srun" not in text
        and b"bash" not in text
    ]
    os.kill(pid, signal.SIGKILL)
    until(lambda: project.state(run.run_id)["state"] == "FAILED", "the failure")
    assert "killed from outside" in project.state(run.run_id)["why"]
