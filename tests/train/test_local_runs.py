"""Whole runs on this machine without Slurm: real training under the local runner, through the command line."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import time
from pathlib import Path

import pytest

from clusterctl.runs import measured
from tests.project import CLUSTERCTL, Project, add_pipeline, check_each_started_where_the_one_before_ended, make_project
from tests.slurm.box import until

LONG = ("--set", "optim.max_steps=300")


@pytest.fixture
def project(tiny_model: Path, tmp_path: Path) -> Project:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "CLUSTERCTL"))}
    return make_project(tmp_path / "a'; echo foo", env, tiny_model, "local")


@pytest.fixture(scope="module")
def undisturbed(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The weights that LONG ends with when nothing happens to it."""
    project = make_project(tmp_path_factory.mktemp("u") / "p", dict(os.environ), tiny_model, "local")
    run = project.submit(*LONG)
    run.wait_for("COMPLETED")
    return run.weights


def test_the_closed_terminal_and_the_killed_runner(project: Project, undisturbed: str) -> None:
    """A run followed on a terminal goes on when that is closed; another when its runner is killed."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(project.folder)
        os.execve(CLUSTERCTL, [str(CLUSTERCTL), "submit", "mine.yaml", *LONG, "--follow"], project.env)
    logs = project.folder / "logs"
    until(lambda: list(logs.glob("*/progress.json")), "the training to begin")
    os.close(terminal)  # the kernel sends SIGHUP, as when an ssh connection ends
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    until(lambda: project.state("last")["state"] == "COMPLETED", "the run to finish", timeout=120)

    run = project.submit(*LONG)
    run.wait_for_step(5)
    runner = json.loads((run.run_dir / "local.json").read_text(encoding="utf-8"))["runner"]["pid"]
    os.kill(runner, signal.SIGKILL)
    assert project.state(run.run_id)["state"] == "RUNNING"
    run.wait_for("COMPLETED")
    assert run.weights == undisturbed


def test_the_time_limit_saves_and_goes_on_bit_equal(project: Project, undisturbed: str) -> None:
    """Fifteen seconds a turn, in however many turns."""
    run = project.submit(*LONG, "--set", "profile.time=0:40", "--set", "profile.signal_lead=25")
    run.wait_for("COMPLETED", timeout=300)
    assert run.weights == undisturbed


def test_stop_by_hand_and_resume_are_bit_equal(project: Project, undisturbed: str) -> None:
    run = project.submit(*LONG)
    run.wait_for_step(20)
    (run.run_dir / "stop").touch()
    until(lambda: project.state(run.run_id)["state"] == "FAILED", "the stop")
    assert "saved at step" in project.state(run.run_id)["why"]
    answer = project.cli("resume", run.run_id)
    assert answer.code == 0, answer.err
    run.wait_for("COMPLETED")
    assert run.weights == undisturbed


def test_every_stage_of_a_pipeline_starts_bit_equal_from_the_one_before(project: Project, tiny_model: Path) -> None:
    """cpt, sft and dpo, with one adapter and with all weights; the two pipelines at the same time."""
    add_pipeline(project, tiny_model)
    adapter = project.submit_all(recipe="line.yaml")
    whole = project.submit_all("--set", "model.adapter=none", recipe="line.yaml")
    for runs, file in ((adapter, "adapter_model.safetensors"), (whole, "model.safetensors")):
        runs[-1].wait_for("COMPLETED", timeout=300)
        assert all((run.run_dir / "final_model" / file).is_file() for run in runs)
        check_each_started_where_the_one_before_ended(runs)


def test_a_failed_stage_never_starts_the_next(project: Project) -> None:
    both = "profile: cpu\npipeline: [{recipe: mine.yaml}, {recipe: mine.yaml, name: again}]\n"
    (project.folder / "both.yaml").write_text(both, encoding="utf-8")
    second = project.submit("--set", "optim.learning_rate=1e30", recipe="both.yaml")
    until(lambda: project.state(second.run_id)["state"] == "CANCELLED", "the second to be given up", timeout=120)
    assert not (second.run_dir / "attempts.jsonl").exists()
    again = project.cli("resume", second.run_id)
    assert (again.code, "would never start" in again.err) == (5, True)


def test_cpu_offload_runs_for_real(project: Project) -> None:
    """DeepSpeed ZeRO-2 with the optimizer in host memory, two processes under accelerate."""
    sets = [
        "profile.gpus_per_node=0",
        "profile.processes_per_node=2",
        "profile.cpus_per_task=2",
        "profile.dtype=fp32",
        "optim.max_steps=3",
        "optim.gradient_accumulation_steps=2",
    ]
    run = project.submit("--profile", "cpu-offload", *(word for one in sets for word in ("--set", one)))
    run.wait_for("COMPLETED", timeout=240)
    metrics = json.loads((run.run_dir / "training_metrics.json").read_text(encoding="utf-8"))
    assert (metrics["world_size"], metrics["steps"]) == (2, 3)
    zero = json.loads((run.run_dir / "deepspeed.json").read_text(encoding="utf-8"))["zero_optimization"]
    assert (zero["stage"], zero["offload_optimizer"]["device"]) == (2, "cpu")


def test_a_test_run_gives_a_verdict_that_submit_knows(project: Project) -> None:
    words = ("mine.yaml", "--set", "optim.max_steps=120", "--set", "output.logging_steps=5")
    assert "no passing test" in project.cli("submit", *words).out
    project.cli("cancel", "last")
    answer = project.cli("test", *words)
    assert answer.code == 0, answer.out + answer.err
    full = "clusterctl submit mine.yaml --profile cpu --set optim.max_steps=120 --set output.logging_steps=5"
    assert answer.out.rstrip().endswith(f"Test passed. Ready for full training: {full}")
    assert "120 steps" in answer.out
    assert "no passing test" not in project.cli("submit", *words).out
    project.cli("cancel", "last")
    # What the test lets expect goes with the run, to stand beside what will be measured.
    [path] = (project.folder / "logs").glob("*/prediction.json")
    prediction = json.loads(path.read_text(encoding="utf-8"))
    assert prediction["peak_memory"] > 2**20
    assert prediction["train_seconds"] == pytest.approx(120 * prediction["seconds_per_step"])
    # And it is a measured point for whoever plans the same.
    [point] = measured.points(project.folder / "logs")
    assert (point.run_id, point.gpu, point.stage, point.model_type, point.adapter) == (
        prediction["from_test"], "cpu", "sft", "qwen2", "lora",
    )  # fmt: skip
    assert point.seconds_per_step == prediction["seconds_per_step"] and point.peak_memory is None
    report = project.cli("report", point.run_id, "--json").json["data"]
    assert (report["state"], report["step"], report["health"]["level"]) == ("COMPLETED", 50, "healthy")
    assert report["used"]["ran"] > 0
    assert report["used"]["seconds_per_step"] == pytest.approx(point.seconds_per_step)
    assert "; healthy" in project.cli("status", point.run_id).out
    failed = project.cli("test", *words, "--set", "optim.learning_rate=1e30")
    assert failed.code == 1
    assert "Test failed." in failed.out
    assert len(measured.points(project.folder / "logs")) == 1
    page = project.cli("report", "last").out
    assert "has diverged" in page and "too early to say" in page
    assert "no passing test" not in project.cli("submit", *words, "--dry-run").out


def test_run_in_the_foreground(project: Project) -> None:
    done = project.cli("run", "mine.yaml")
    assert done.code == 0, done.err
    assert "=== attempt 1 · job by hand" in done.out
    assert "COMPLETED" in done.out.splitlines()[-1]
    (project.folder / "data.csv").write_text("prompt,response\na,b\n", encoding="utf-8")
    child = subprocess.Popen(
        [CLUSTERCTL, "run", "mine.yaml", "--set", "optim.max_steps=100000"],
        cwd=project.folder,
        env=project.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    until(lambda: len(list((project.folder / "logs").glob("[!.]*"))) == 2, "the second run")
    until(lambda: project.state("last")["progress"]["step"] > 2, "training")
    assert project.state("last")["state"] == "RUNNING"
    assert project.cli("cancel", "last").code == 5
    began = time.monotonic()
    os.killpg(child.pid, signal.SIGINT)  # Ctrl-C
    out, _ = child.communicate(timeout=60)
    assert child.returncode == 1, time.monotonic() - began
    assert "CANCELLED" in out.splitlines()[-1]
    assert "asked to stop, saved at step" in out

    # Killed itself, its training goes on, and is neither called dead nor started a second time.
    child = subprocess.Popen([CLUSTERCTL, "run", "mine.yaml", *LONG], cwd=project.folder, env=project.env)
    until(lambda: len(list((project.folder / "logs").glob("[!.]*"))) == 3, "the third run")
    until(lambda: project.state("last")["progress"]["step"] > 2, "training")
    child.kill()
    child.wait()
    assert project.state("last")["state"] == "RUNNING"
    assert project.cli("resume", "last").code == 5
    until(lambda: project.state("last")["state"] == "COMPLETED", "the end", timeout=120)
