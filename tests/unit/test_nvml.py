"""This machine's GPUs, asked in child processes of a fake NVML library, and of none."""

from __future__ import annotations

import os
import pickle
import pwd
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from clusterctl.errors import Unavailable
from clusterctl.hardware import Gpu, GpuProcess, Machine
from tests.fake_nvml.build import A40, A800, FLEET, Card, fake_nvml_env

GIB = 1024**3
MIB = 1024**2
ROOT = Path(__file__).resolve().parents[2]
ME = pwd.getpwuid(os.getuid()).pw_name

ASK = """
import pickle, sys
from clusterctl.adapters import nvml
from clusterctl.errors import Unavailable
try:
    answer = nvml.machine(timeout=float(sys.argv[1]))
except Unavailable as e:
    answer = e
pickle.dump(answer, sys.stdout.buffer)
"""


def ask(env: dict[str, str], *, timeout: float = 30) -> Machine | Unavailable:
    """What ``nvml.machine`` answers or raises in a process of its own with these variables added."""
    child = subprocess.run(
        [sys.executable, "-c", ASK, str(timeout)],
        env=os.environ | env,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
    )
    return pickle.loads(child.stdout)


def machine(folder: Path, *cards: Card, old_driver: bool = False) -> Machine:
    answer = ask(fake_nvml_env(folder, cards, old_driver=old_driver))
    assert isinstance(answer, Machine), answer
    return answer


def card(folder: Path, card: Card, *, old_driver: bool = False) -> Gpu:
    [gpu] = machine(folder, card, old_driver=old_driver).gpus
    return gpu


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    hostile = tmp_path / "a'; echo foo"
    hostile.mkdir()
    return hostile


def test_the_whole_fleet(folder: Path) -> None:
    answer = machine(folder, *FLEET)
    assert (answer.hostname, answer.driver, answer.cuda) == (os.uname().nodename, "550.163.01", "12.4")
    assert [(gpu.index, gpu.gpu_type) for gpu in answer.gpus] == [*enumerate(["a800"] * 4 + ["a40"] * 4)]
    assert len({gpu.uuid for gpu in answer.gpus}) == 8
    assert all(gpu.usable and not gpu.busy and gpu.warnings == () for gpu in answer.gpus)


def test_every_field_of_a_working_card(folder: Path) -> None:
    working = replace(A800, used=61440, utilization=97, temperature=63, watts=281, faults="throttle=0x4")
    assert card(folder, working) == Gpu(
        index=0,
        uuid="GPU-fa000000-0000-4000-8000-000000000000",
        name="NVIDIA A800 80GB PCIe",
        memory_total=80 * GIB,
        memory_used=60 * GIB,
        utilization=97,
        temperature=63,
        power_w=281.0,
        power_limit_w=300.0,
        bus_id="00000000:10:00.0",
        compute_capability=(8, 0),
    )


def test_idle_card_uses_no_memory(folder: Path) -> None:
    assert card(folder, A40).memory_used == 0


def test_old_driver_is_asked_in_its_own_words(folder: Path) -> None:
    pid = os.getpid()
    old = replace(A800, used=2048, temperature=55, faults="throttle=0x8", processes={pid: 2000})
    answer = machine(folder, old, old_driver=True)
    [gpu] = answer.gpus
    assert answer.cuda is None
    assert gpu.memory_used == (2048 + 583) * MIB
    assert gpu.temperature == 55
    assert [process.pid for process in gpu.processes] == [pid]
    assert gpu.warnings == ("clocks are held down: hardware slowdown",)


def test_idle_card_of_an_old_driver_is_not_busy(folder: Path) -> None:
    gpu = card(folder, A800, old_driver=True)
    assert gpu.memory_used == 583 * MIB
    assert not gpu.busy


# --- bad cards --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("lost", "lost"),
        ("vanish", "lost"),
        ("reset", "needs a reset"),
        ("unreadable", "Unknown Error"),
        ("ecc=3", "3 uncorrected memory errors"),
        ("remap-pending", "drain the card"),
        ("remap-failed", "replace the card"),
        ("remap-failed,ecc=1", "1 uncorrected memory errors since the driver was loaded; bad memory rows"),
    ],
)
def test_a_card_with_a_problem_is_listed_and_not_used(folder: Path, fault: str, words: str) -> None:
    answer = machine(folder, A800, replace(A800, faults=fault), A40)
    first, bad, last = answer.gpus
    assert (bad.index, bad.usable) == (1, False)
    assert words in (bad.problem or "")
    assert first.usable and last.usable
    assert last.name == "NVIDIA A40"


def test_a_card_that_vanishes_while_it_is_read_keeps_its_name(folder: Path) -> None:
    gpu = card(folder, replace(A40, faults="vanish"))
    assert (gpu.name, gpu.uuid) == ("NVIDIA A40", "GPU-fa000000-0000-4000-8000-000000000000")
    assert gpu.memory_total is None


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("throttle=0x8", "hardware slowdown"),
        ("throttle=0x40", "too hot for the hardware"),
        ("throttle=0x80", "external power brake"),
        ("throttle=0x20", "too hot for the driver"),
        ("pcie=8", "x8 of x16"),
        ("persistence-off", "nvidia-smi -pm 1"),
    ],
)
def test_what_slows_a_card_down_is_a_warning(folder: Path, fault: str, words: str) -> None:
    gpu = card(folder, replace(A800, faults=fault))
    [warning] = gpu.warnings
    assert words in warning
    assert gpu.usable


@pytest.mark.parametrize("reason", ["0x1", "0x2", "0x4", "0x10", "0x100"])
def test_idle_and_limits_set_on_purpose_are_no_warning(folder: Path, reason: str) -> None:
    assert card(folder, replace(A800, faults=f"throttle={reason}")).warnings == ()


def test_a_past_xid_leaves_nothing_to_see(folder: Path) -> None:
    gpu = card(folder, replace(A800, faults="xid=79"))
    assert (gpu.problem, gpu.warnings) == (None, ())


def test_cards_that_may_not_be_opened_are_left_out(folder: Path) -> None:
    answer = machine(folder, replace(A800, faults="denied"), A40, replace(A40, faults="denied"))
    assert [gpu.index for gpu in answer.gpus] == [1]
    assert answer.hidden == 2


def test_a_field_that_the_driver_does_not_tell_is_none(folder: Path) -> None:
    gpu = card(folder, Card("NVIDIA GeForce RTX 3090", "8.6", 24576, used=100, faults="bare"))
    assert (gpu.gpu_type, gpu.memory_used, gpu.compute_capability) == ("rtx3090", 100 * MIB, (8, 6))
    assert (gpu.utilization, gpu.temperature, gpu.power_w, gpu.power_limit_w) == (None,) * 4
    assert (gpu.usable, gpu.warnings) == (True, ())


def test_a_driver_that_hangs_is_given_up(folder: Path) -> None:
    answer = ask(fake_nvml_env(folder, [A40, replace(A40, faults="hang")]), timeout=0.5)
    assert isinstance(answer, Unavailable)
    assert "did not answer" in answer.message


# --- MIG --------------------------------------------------------------------------------------


def test_a_split_card_is_followed_by_its_instances(folder: Path) -> None:
    split = Card("NVIDIA A100-SXM4-40GB", "8.0", 40960, faults="mig=2", processes={os.getpid(): 900})
    parent, first, second, other = machine(folder, split, A40).gpus
    assert (parent.mig, parent.usable, parent.utilization) == (True, False, None)
    for instance in (first, second):
        assert instance.uuid and instance.uuid.startswith("MIG-")
        assert (instance.index, instance.mig, instance.usable) == (0, False, True)
        assert (instance.gpu_type, instance.memory_total) == ("a100", 20 * GIB)
    assert (len(first.processes), len(second.processes)) == (1, 0)
    assert (other.index, other.gpu_type) == (1, "a40")


def test_instances_share_the_problem_of_their_card(folder: Path) -> None:
    gpus = machine(folder, replace(A800, faults="mig=1,ecc=2")).gpus
    assert [gpu.problem for gpu in gpus] == ["2 uncorrected memory errors since the driver was loaded"] * 2


def test_a_split_card_without_instances_is_listed_and_not_used(folder: Path) -> None:
    gpu = card(folder, replace(A800, faults="mig=0"))
    assert (gpu.mig, gpu.usable) == (True, False)


# --- processes --------------------------------------------------------------------------------


def test_processes_have_owner_and_command(folder: Path) -> None:
    script = "import sys; print(flush=True); sys.stdin.read()"
    child = subprocess.Popen(
        [sys.executable, "-c", script, "--name", "a b"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with child:
        assert child.stdout and child.stdout.readline()
        gpu = card(folder, replace(A800, processes={child.pid: 61000}))
        child.communicate()
    assert gpu.busy
    me = pwd.getpwuid(os.getuid()).pw_name
    assert gpu.processes == (GpuProcess(child.pid, 61000 * MIB, me, f"{sys.executable} -c {script} --name a b"),)


def test_the_owner_of_another_users_process(folder: Path) -> None:
    user = "nobody" if os.getuid() == 0 else None
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, user=user) as child:
        gpu = card(folder, replace(A800, processes={child.pid: 10}))
        child.communicate()
    assert gpu.processes == (GpuProcess(child.pid, 10 * MIB, user or ME, "cat"),)


def test_a_process_that_has_ended_keeps_its_memory_and_has_no_owner(folder: Path) -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    gpu = card(folder, replace(A800, processes={child.pid: 512}))
    assert gpu.processes == (GpuProcess(child.pid, 512 * MIB, None, None),)


# --- the driver -------------------------------------------------------------------------------


def test_no_driver(folder: Path) -> None:
    """An empty file is found first, and cannot be loaded, also where a real driver is installed."""
    (folder / "libnvidia-ml.so.1").touch()
    answer = ask({"LD_LIBRARY_PATH": str(folder)})
    assert isinstance(answer, Unavailable)
    assert "no NVIDIA driver is installed" in answer.message
    assert "login node" in answer.hint


@pytest.mark.parametrize(
    ("code", "message", "hint"),
    [
        (9, "kernel module is not loaded", "modprobe nvidia"),
        (18, "was upgraded", "reboot"),
        (999, "Unknown Error", "nvidia-smi"),
    ],
)
def test_a_driver_that_does_not_start(folder: Path, code: int, message: str, hint: str) -> None:
    answer = ask(fake_nvml_env(folder, init_error=code))
    assert isinstance(answer, Unavailable)
    assert message in answer.message
    assert hint in answer.hint


def test_the_driver_is_started_once_and_always_stopped(folder: Path) -> None:
    machine(folder, A800, replace(A800, faults="lost"), replace(A40, faults="denied"), A40)
    assert (folder / "nvml-calls").read_text().split() == ["init", "shutdown"]


def test_a_machine_without_cards(folder: Path) -> None:
    assert machine(folder).gpus == ()


# --- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "gpu_type"),
    [
        ("NVIDIA A800 80GB PCIe", "a800"),
        ("NVIDIA A800-SXM4-80GB", "a800"),
        ("NVIDIA A40", "a40"),
        ("NVIDIA A100-SXM4-40GB MIG 3g.20gb", "a100"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA GH200 480GB", "gh200"),
        ("NVIDIA L40S", "l40s"),
        ("Tesla V100-SXM2-32GB", "v100"),
        ("Tesla T4", "t4"),
        ("NVIDIA GeForce RTX 3090", "rtx3090"),
        ("NVIDIA GeForce RTX 2080 Ti", "rtx2080ti"),
        ("NVIDIA RTX A6000", "a6000"),
        ("NVIDIA RTX 6000 Ada Generation", "rtx6000ada"),
        ("Quadro RTX 8000", "rtx8000"),
        ("NVIDIA TITAN V", "titanv"),
        ("", None),
        (None, None),
    ],
)
def test_gpu_type(name: str | None, gpu_type: str | None) -> None:
    assert Gpu(0, "GPU-1", name).gpu_type == gpu_type
