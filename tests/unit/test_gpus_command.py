"""Two sources, the driver and Slurm, of which either may be missing; asked in child processes."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from clusterctl.commands.gpus import GpusResult
from clusterctl.errors import Unavailable
from tests.fake_nvml.build import A40, fake_nvml_env

ROOT = Path(__file__).resolve().parents[2]

ASK = """
import pickle, sys
from clusterctl.commands.gpus import collect
from clusterctl.errors import Unavailable
try:
    answer = collect()
except Unavailable as e:
    answer = e
pickle.dump(answer, sys.stdout.buffer)
"""

DOWN = """#!/bin/sh
echo 'slurm_load_partitions: Unable to contact slurm controller (connect failure)' >&2
exit 1
"""


def collect(commands: Path, env: Mapping[str, str]) -> GpusResult | Unavailable:
    """What ``collect`` answers or raises where the folder ``commands`` is all of PATH."""
    child = subprocess.run(
        [sys.executable, "-c", ASK],
        env=os.environ | env | {"PATH": str(commands)},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
    )
    answer: GpusResult | Unavailable = pickle.loads(child.stdout)
    return answer


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    folder = tmp_path / "a'; echo foo"
    folder.mkdir()
    return folder


@pytest.fixture
def no_driver(tmp_path: Path) -> dict[str, str]:
    """A library that is none: found first, and not loaded, also where a real driver is installed."""
    (tmp_path / "libnvidia-ml.so.1").touch()
    return {"LD_LIBRARY_PATH": str(tmp_path)}


def slurm_is_down(commands: Path) -> None:
    for name in ("sinfo", "scontrol"):
        (commands / name).write_text(DOWN)
        (commands / name).chmod(0o755)


def test_a_gpu_server_without_slurm(commands: Path, tmp_path: Path) -> None:
    answer = collect(commands, fake_nvml_env(tmp_path, [A40]))
    assert isinstance(answer, GpusResult)
    assert answer.machine and [gpu.gpu_type for gpu in answer.machine.gpus] == ["a40"]
    assert (answer.machine_problem, answer.nodes, answer.cluster_problem) == (None, None, None)


def test_a_slurm_that_does_not_answer_does_not_hide_this_machine(commands: Path, tmp_path: Path) -> None:
    slurm_is_down(commands)
    answer = collect(commands, fake_nvml_env(tmp_path, [A40]))
    assert isinstance(answer, GpusResult)
    assert answer.machine and answer.nodes is None
    assert answer.cluster_problem


def test_neither_driver_nor_slurm(commands: Path, no_driver: dict[str, str]) -> None:
    answer = collect(commands, no_driver)
    assert isinstance(answer, Unavailable)
    assert "no NVIDIA driver" in answer.message
    assert "login node" in answer.hint


def test_no_driver_and_a_slurm_that_does_not_answer(commands: Path, no_driver: dict[str, str]) -> None:
    slurm_is_down(commands)
    answer = collect(commands, no_driver)
    assert isinstance(answer, Unavailable)
    assert answer.message.startswith("no NVIDIA driver is installed here (libnvidia-ml.so.1 was not found); ")
