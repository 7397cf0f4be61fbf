"""What is said about processes before torch is loaded: combinations, counts, the strategy in effect, and GPUs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from clusterctl import profiles
from clusterctl.schema import Profile
from trainers.config import RunConfig, explain, parse
from trainers.errors import InputProblem, RunProblem
from trainers.launch import main, visible_gpus
from trainers.runtime.processes import check_processes, check_strategy


def config(**parallel: Any) -> RunConfig:
    launcher = {"launcher": "torchrun", "processes_per_node": 2} | parallel
    return parse(
        {
            "stage": "sft",
            "model": {"model_name_or_path": "m"},
            "data": {"train_files": "d.csv"},
            "parallel": launcher,
        }
    )


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"launcher": "python", "strategy": "ddp", "gpus_per_node": 2}, "use torchrun, accelerate or deepspeed"),
        ({"launcher": "python", "strategy": "zero2", "gpus_per_node": 1}, "use torchrun, accelerate or deepspeed"),
        ({"launcher": "torchrun", "strategy": "single", "gpus_per_node": 2}, "use ddp, fsdp or zero1 to zero3"),
        ({"launcher": "torchrun", "strategy": "single", "nodes": 2}, "use ddp, fsdp or zero1 to zero3"),
        ({"launcher": "deepspeed", "strategy": "ddp", "gpus_per_node": 2}, "use torchrun"),
        (
            {"launcher": "torchrun", "strategy": "ddp", "offload": "optimizer", "gpus_per_node": 2},
            "needs strategy zero1",
        ),
        (
            {"launcher": "torchrun", "strategy": "zero2", "offload": "all", "gpus_per_node": 2},
            "needs strategy zero3 or",
        ),
        ({"launcher": "torchrun", "strategy": "fsdp", "processes_per_node": 2}, "ddp, zero2 or zero3 without"),
        ({"launcher": "torchrun", "strategy": "fsdp", "gpus_per_node": 1}, "use single for one"),
    ],
)
def test_a_profile_and_a_run_that_do_not_fit_together_are_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Profile(**wrong)
    run = {name: value for name, value in wrong.items() if name in ("launcher", "strategy", "offload")}
    processes = wrong.get("gpus_per_node") or wrong.get("processes_per_node", 1)
    device = "cuda" if "gpus_per_node" in wrong else "cpu"
    with pytest.raises(ValidationError, match=words) as raised:
        config(**run, processes_per_node=processes, num_nodes=wrong.get("nodes", 1), device=device)
    assert len(explain(raised.value, {"stage": "sft"})) == 1


@pytest.mark.parametrize(
    ("name", "strategy", "offload", "processes"),
    [
        ("a800-4", "ddp", "none", 4),
        ("a800-4-ddp", "ddp", "none", 4),
        ("a800-4-fsdp", "fsdp", "none", 4),
        ("a800-4-zero3", "zero3", "none", 4),
        ("a800-2x4-zero3", "zero3", "none", 8),
        ("gpu-8", "ddp", "none", 8),
        ("h100-1", "single", "none", 1),
        ("v100-1-zero2-offload", "zero2", "optimizer", 1),
        ("a40-4-fsdp-offload", "fsdp", "all", 4),
        ("a40-4-zero3-offload", "zero3", "all", 4),
        ("cpu-offload", "zero2", "optimizer", 1),
    ],
)
def test_profiles_are_what_their_names_say(name: str, strategy: str, offload: str, processes: int) -> None:
    profile = Profile(**profiles.find(name).values)
    assert (profile.strategy, profile.offload, profile.nodes * profile.processes) == (strategy, offload, processes)


def test_processes_are_counted_in_all_and_on_each_node(monkeypatch: pytest.MonkeyPatch) -> None:
    two_nodes = config(strategy="ddp", num_nodes=2, processes_per_node=1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("LOCAL_WORLD_SIZE", "LOCAL_SIZE"):  # torchrun's and DeepSpeed's
        monkeypatch.setenv(name, "1")
        check_processes(two_nodes)
        monkeypatch.setenv(name, "2")
        with pytest.raises(InputProblem, match=r"2 processes on this node, so 1 nodes; run\.yaml plans 1 on"):
            check_processes(two_nodes)
        monkeypatch.delenv(name)
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(InputProblem, match=r"4 processes work together, run\.yaml plans 2"):
        check_processes(two_nodes)


@pytest.mark.parametrize(
    ("strategy", "kind", "stage", "found"),
    [
        ("ddp", "MULTI_GPU", None, None),
        ("ddp", "MULTI_CPU", None, None),
        ("ddp", "NO", None, "single"),
        ("fsdp", "FSDP", None, None),
        ("fsdp", "MULTI_CPU", None, "ddp"),
        ("zero3", "DEEPSPEED", 3, None),
        ("zero3", "DEEPSPEED", 2, "zero2"),
        ("zero2", "MULTI_GPU", None, "ddp"),
    ],
)
def test_a_strategy_that_is_not_in_effect_is_noticed(
    strategy: str, kind: str, stage: int | None, found: str | None
) -> None:
    state = SimpleNamespace(deepspeed_plugin=SimpleNamespace(zero_stage=stage))
    accelerator = SimpleNamespace(state=state, distributed_type=SimpleNamespace(value=kind))
    trainer = SimpleNamespace(args=SimpleNamespace(world_size=2), accelerator=accelerator)
    if found is None:
        check_strategy(config(strategy=strategy), trainer)
        return
    with pytest.raises(RunProblem, match=f"strategy {strategy} was planned, and {found} is in effect"):
        check_strategy(config(strategy=strategy), trainer)


def test_fsdp_without_gpus_is_refused_and_not_made_ddp(tmp_path: Path) -> None:
    from trainers.runtime import fsdp

    with pytest.raises(RunProblem, match="strategy fsdp needs GPUs"):
        fsdp.start(config(strategy="fsdp"), tmp_path, "cpu")
    assert fsdp.start(config(strategy="ddp"), tmp_path, "cpu") == {}
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        (None, ["0", "1"]),
        ("3,1", ["3", "1"]),
        ("GPU-aa,GPU-bb", ["GPU-aa", "GPU-bb"]),
        ("2,3,4", ["2", "3"]),
        ("", ["-1", "-1"]),
        ("3", None),
    ],
)
def test_the_deepspeed_launcher_gets_the_gpus_of_the_job(named: str | None, expected: list[str] | None) -> None:
    """Left alone it takes 0, 1, ... and fails at the UUIDs that the local runner gives."""
    assert visible_gpus(named, 2) == expected


def test_too_few_gpus_are_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert main(["--nproc-per-node=2", "run.yaml"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "error: 2 processes are planned, CUDA_VISIBLE_DEVICES names fewer GPUs",
        "hint: ask for as many GPUs as processes",
    ]
