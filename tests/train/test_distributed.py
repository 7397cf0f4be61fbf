"""Two processes: the same training as one, whatever they share out; stopped or killed, it goes on bit-exact.

Loading the libraries takes longer than all of these runs, so they are done one after the other in one pair of
processes (tests/train/driver.py), and the tests look at what came out.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import make_rows, write_csv, write_run
from tests.train.conftest import environment, losses, metrics, torchrun, train, wait_for_step, weights

SHARED_OUT = [
    ("ddp", "none"),
    ("zero1", "none"),
    ("zero1", "optimizer"),
    ("zero2", "none"),
    ("zero2", "optimizer"),
    ("zero3", "none"),
    ("zero3", "optimizer"),
    ("zero3", "all"),
    ("fsdp", "none"),
]
RESUMED = ("ddp", "zero2", "zero3", "fsdp")
KILLED = ("ddp", "zero2")
STATEFUL: dict[str, Any] = {
    # All that has a state: dropout, accumulation, a schedule, epochs of 5 steps of which the last is short.
    "model__lora": {"r": 4, "lora_dropout": 0.2},
    "optim__max_steps": 8,
    "output__save_steps": 3,
}
LONG: dict[str, Any] = {
    **STATEFUL,
    "optim__max_steps": 40,
    "output__save_total_limit": None,
    # Several rows in one, so an epoch is 2 steps.
    "method": {"packing": True},
}


def write(run_dir: Path, model: Path, data: Path, strategy: str, offload: str = "none", **changes: Any) -> Path:
    """A run of two processes, or of one with the batch of both."""
    processes = 1 if strategy == "single" else 2
    parallel = {
        "launcher": "python" if processes == 1 else "torchrun",
        "strategy": strategy,
        "offload": offload,
        "processes_per_node": processes,
    }
    values = {
        "parallel": parallel,
        "data__validation_split": 0.25,
        "optim__per_device_train_batch_size": 4 // processes,
        "optim__gradient_accumulation_steps": 2,
        "optim__max_steps": 6,
        **changes,
    }
    return write_run(run_dir, model, data, **values)


def drive(folder: Path, runs: list[Path], launcher: tuple[str, ...] = (sys.executable,)) -> list[int]:
    """Do the runs one after the other in the same processes, and return their exit codes."""
    codes = folder / "codes.json"
    argv = [*launcher, "-m", "tests.train.driver", str(codes), *map(str, runs)]
    done = subprocess.run(argv, env=environment(), capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr[-5000:]
    return json.loads(codes.read_text())


def kill_and_tear(run: Path, step: int) -> None:
    """Start two processes, kill one without warning, and tear the checkpoints from ``step`` on."""
    argv = [*torchrun(2), "-m", "trainers", str(run)]
    launcher = subprocess.Popen(argv, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_for_step(launcher, run.parent, step + 2)
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    assert launcher.wait(90) != 0
    for mark in (run.parent / "checkpoints").glob("*/COMPLETE"):
        if int(mark.parent.name.split("-")[1]) >= step:
            mark.unlink()
            for torn in mark.parent.glob("**/*.pt"):
                torn.write_bytes(b"torn")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Callable[[str], Path]:
    """All runs of this file, done; by name their directories."""
    folder = tmp_path_factory.mktemp("pair") / "a'; echo foo"
    folder.mkdir()
    data = write_csv(folder / "data.csv", make_rows())

    def run(name: str, strategy: str, offload: str = "none", **changes: Any) -> Path:
        return write(folder / name, tiny_model, data, strategy, offload, **changes)

    words = {"eval__samples": 3, "eval__max_new_tokens": 4}
    full = {"model__adapter": "none", "optim__learning_rate": 1e-3}
    assert drive(folder, [run("single", "single", **words), run("single full", "single", **full)]) == [0, 0]

    together = [run(f"{strategy} {offload}", strategy, offload, **words) for strategy, offload in SHARED_OUT]
    together += [run(f"{strategy} full", strategy, **full) for strategy in ("zero3", "fsdp")]
    expected = [0] * len(together)
    for strategy in RESUMED:
        together.append(run(f"{strategy} whole", strategy, **STATEFUL))
        parts = run(f"{strategy} parts", strategy, **STATEFUL)
        (parts.parent / "stop").touch()
        # Stops after the first step, goes on to the end, and then finds nothing left to train.
        together += [parts, parts, parts]
        expected += [0, 85, 0, 0]
    for strategy in KILLED:
        killed = run(f"{strategy} killed", strategy, **LONG)
        kill_and_tear(killed, 12)
        together += [run(f"{strategy} long", strategy, **LONG), killed]
        expected += [0, 0]
    assert drive(folder, together, torchrun(2)) == expected
    return lambda name: folder / name


def evaluations(run_dir: Path) -> dict[int, tuple[float, float]]:
    return {
        line["step"]: (line["eval_loss"], line["eval_answer_accuracy"])
        for line in metrics(run_dir)
        if "eval_loss" in line
    }


@pytest.mark.parametrize(("strategy", "offload"), SHARED_OUT)
def test_two_processes_train_as_one_does(runs: Callable[[str], Path], strategy: str, offload: str) -> None:
    alone, both = runs("single"), runs(f"{strategy} {offload}")
    # One process adds up other halves of the same sums. Each step is logged once, not once a process.
    assert losses(both) == pytest.approx(losses(alone), rel=1e-5)
    assert len([line for line in metrics(both) if "loss" in line]) == 6
    assert evaluations(both).keys() == {0, 6}
    for step, measured in evaluations(alone).items():
        assert evaluations(both)[step] == pytest.approx(measured, rel=1e-5)
    said = json.loads((both / "samples.json").read_text())
    assert said == json.loads((alone / "samples.json").read_text())
    assert len(said["samples"]) == 3
    assert (both / "deepspeed.json").exists() == strategy.startswith("zero")
    # Whatever was shared out: what comes out is whole.
    assert tensors(both).keys() == tensors(alone).keys()
    for name, expected in tensors(alone).items():
        assert tensors(both)[name] == pytest.approx(expected, abs=1e-4), name
    counted = json.loads((both / "training_metrics.json").read_text())
    assert counted["trainable_parameters"] == sum(len(values) for values in tensors(alone).values())


def tensors(run_dir: Path) -> dict[str, Any]:
    """The trained weights, flat."""
    from safetensors.numpy import load_file

    (path,) = (run_dir / "final_model").glob("*.safetensors")
    return {name: tensor.ravel() for name, tensor in load_file(path).items()}


@pytest.mark.parametrize("strategy", ["zero3", "fsdp"])
def test_all_weights_learn_shared_out_and_load_as_a_plain_model(runs: Callable[[str], Path], strategy: str) -> None:
    from transformers import AutoModelForCausalLM

    alone, both = runs("single full"), runs(f"{strategy} full")
    assert losses(both) == pytest.approx(losses(alone), rel=1e-4)
    assert losses(both)[6] < losses(both)[1] - 0.2
    one, other = (AutoModelForCausalLM.from_pretrained(run / "final_model") for run in (alone, both))
    for (name, expected), found in zip(one.named_parameters(), other.parameters(), strict=True):
        assert found.shape == expected.shape
        assert found.dtype == expected.dtype
        # Adam's first steps have a size of their own: where a gradient is nearly 0, its sign is chance.
        assert (found - expected).abs().mean() < 1e-4, name


@pytest.mark.parametrize("strategy", RESUMED)
def test_stopped_two_processes_go_on_bit_exact(runs: Callable[[str], Path], strategy: str) -> None:
    whole, parts = runs(f"{strategy} whole"), runs(f"{strategy} parts")
    log = (parts / "training.log").read_text()
    assert "asked to stop: saving at step 1" in log
    assert "resuming from checkpoint-1" in log
    assert losses(parts) == losses(whole)
    assert weights(parts) == weights(whole)
    assert "checkpoint-8 is the last step: nothing is left to train" in log


@pytest.mark.parametrize("strategy", KILLED)
def test_killed_two_processes_go_on_bit_exact_before_what_is_torn(runs: Callable[[str], Path], strategy: str) -> None:
    """In the middle of the fifth epoch, with packed rows."""
    long, killed = runs(f"{strategy} long"), runs(f"{strategy} killed")
    assert "resuming from checkpoint-9\n" in (killed / "training.log").read_text()
    assert losses(killed) == losses(long)
    assert weights(killed) == weights(long)


def test_a_launcher_that_starts_too_few_is_noticed(folder: Path, data: Path, tiny_model: Path) -> None:
    ended = train(write(folder / "run", tiny_model, data, "ddp"), launcher=torchrun(1))
    assert ended.code != 0
    assert "error: 1 processes work together, run.yaml plans 2" in ended.err
    # torchrun shows a traceback of its own, but not one of ours.
    assert "trainers/processes.py" not in ended.err


def test_fsdp_is_configured_as_accelerate_reads_it(folder: Path, data: Path, tiny_model: Path) -> None:
    """With weights in host memory, which needs a GPU to be tried."""
    from accelerate import FullyShardedDataParallelPlugin
    from torch.distributed.fsdp import CPUOffloadPolicy
    from transformers import TrainingArguments

    from trainers.config import load
    from trainers.runtime import fsdp

    config = load(write(folder / "run", tiny_model, data, "fsdp", "all", model__gradient_checkpointing=True))
    before = dict(os.environ)
    try:
        arguments = fsdp.start(config, folder, "cuda")
        plugin = FullyShardedDataParallelPlugin(**TrainingArguments(use_cpu=True, **arguments).fsdp_plugin_args)
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
    assert plugin.fsdp_version == 2
    assert isinstance(plugin.cpu_offload, CPUOffloadPolicy)
    assert plugin.activation_checkpointing
    assert plugin.reshard_after_forward
    assert plugin.state_dict_type.name == "FULL_STATE_DICT"


@pytest.mark.parametrize("launcher", ["torchrun", "accelerate", "deepspeed"])
def test_launchers_outlive_a_request_to_stop(folder: Path, data: Path, tiny_model: Path, launcher: str) -> None:
    """Slurm sends TERM to every process of a step. The trainers save, and until then no launcher ends them."""
    run = write(folder / "run", tiny_model, data, "zero2", optim__max_steps=100_000)
    job = subprocess.Popen(
        ["bash", write_job(run.parent, launcher)],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        wait_for_step(job, run.parent, 3)
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = path.read_bytes()
                launches = b".launch" in words or b"torch.distributed.run" in words
                if launches and os.getpgid(int(path.parent.name)) == job.pid:
                    os.kill(int(path.parent.name), signal.SIGTERM)
        wait_for_step(job, run.parent, metrics(run.parent)[-1]["step"] + 30)
        os.killpg(job.pid, signal.SIGTERM)
        assert job.wait(90) == 143, job.stderr and job.stderr.read()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)
    end = json.loads((run.parent / "attempts.jsonl").read_text().splitlines()[-1])
    assert end["outcome"] == "saved"
    assert end["why"].startswith("asked to stop, saved at step ")


def write_job(run_dir: Path, launcher: Any) -> Path:
    """The job script of a run of two processes on this machine."""
    from clusterctl import assets, render
    from clusterctl.model import Activation, Plan, Resources

    activation = Activation(kind="python", target=sys.executable)
    plan = Plan("n", "local", Resources(), activation, launcher, zero=True, processes_per_node=2, version="0")
    path = run_dir / "job.sh"
    path.write_text(render.render(plan, assets.shipped_dir("job_templates") / "job.sh.j2"), encoding="utf-8")
    return path
