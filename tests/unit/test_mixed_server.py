"""A server with 4 x A800 and 4 x A40, some busy, as jobs of the real local runner see it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace

import pytest

from clusterctl.adapters.leases import holders
from tests.fake_nvml.build import MIXED_SERVER, Card
from tests.local_box import ROOT, wait_until
from tests.project import CLUSTERCTL
from tests.unit.test_local_gpus import HOLD, GpuBox
from tests.unit.test_local_gpus import box as box  # the fixture

GIB = 1024**3


def used(*busy: int, faults: dict[int, str] | None = None) -> list:  # type: ignore[type-arg]
    """The server with processes of others (of pid 1) on these cards."""
    return [
        replace(
            card,
            used=3000 if index in busy else 0,
            processes={1: 3000} if index in busy else {},
            faults=(faults or {}).get(index, ""),
        )
        for index, card in enumerate(MIXED_SERVER)
    ]


@pytest.fixture
def server(box: GpuBox) -> Iterator[GpuBox]:
    box.cards(*MIXED_SERVER)
    yield box


# --- what a job gets ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("busy", "wanted", "indices"),
    [
        # M2: a type, or auto, which keeps the big cards for those who need them
        ((), {"gpu_type": "a800"}, [0]),
        ((), {"gpu_type": "a40"}, [4]),
        ((), {}, [4]),
        ((4, 5, 6, 7), {}, [0]),
        # M13: what is too big for an A40 goes to an A800, also where A40s are free
        ((), {"gpu_memory": 60 * GIB}, [0]),
        ((), {"gpu_memory": 30 * GIB}, [4]),
        # M13: several cards are of one kind and joined by NVLink, by a switch, or at least by the memory node
        ((0,), {"gpus": 2, "gpu_type": "a800"}, [2, 3]),
        ((4,), {"gpus": 2}, [6, 7]),
        ((4, 6), {"gpus": 2}, [5, 7]),
        ((), {"gpus": 4}, [4, 5, 6, 7]),
        ((5,), {"gpus": 4}, [0, 1, 2, 3]),
        # one card is taken where it tears no pair
        ((1,), {"gpu_type": "a800"}, [0]),
        ((7,), {}, [6]),
    ],
)
def test_choices(box: GpuBox, busy: tuple[int, ...], wanted: dict[str, object], indices: list[int]) -> None:
    box.cards(*used(*busy))
    ref = box.gpu_job('echo "$CUDA_VISIBLE_DEVICES"', **wanted)  # type: ignore[arg-type]
    assert box.until(ref).exit_code == 0
    assert [int(uuid[-12:], 16) for uuid in box.local_json(ref).gpus] == indices


def test_a_variant_is_asked_for_by_its_word(box: GpuBox) -> None:
    a100 = Card("NVIDIA A100-SXM4-40GB", "8.0", 40960)
    box.cards(a100, replace(a100, name="NVIDIA A100-SXM4-80GB", memory=81920))
    refs = [box.gpu_job(gpu_type=word) for word in ("a100_80gb", "a100")]
    assert [box.holds(ref) for ref in refs] == [[1], [0]]
    box.finish(*refs)


def test_broken_cards_are_no_neighbours(box: GpuBox) -> None:
    box.cards(*used(faults={1: "ecc=2", 4: "lost"}))
    ref = box.gpu_job(gpus=2, gpu_type="a800")
    other = box.gpu_job(gpus=3, gpu_type="a40")
    assert (box.holds(ref), box.holds(other)) == ([2, 3], [5, 6, 7])
    box.finish(ref, other)


def test_simultaneous_submissions_never_share_a_card(server: GpuBox) -> None:
    jobs = [(server.run_dir(HOLD), f"token{number}") for number in range(4)]
    submitting = [
        subprocess.Popen(
            server.submit_command(run_dir, token, gpus_per_node=2),
            env=os.environ | server.env,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for run_dir, token in jobs
    ]
    refs = [
        server.remember(process.communicate()[0].strip(), token, run_dir)
        for process, (run_dir, token) in zip(submitting, jobs, strict=True)
    ]
    got = [tuple(server.holds(ref)) for ref in refs]
    # Two get the pairs of A40, the other two the pairs of A800: no card twice, no pair torn.
    assert sorted(got) == [(0, 1), (2, 3), (4, 5), (6, 7)]
    server.finish(*refs)


def test_a_big_job_waits_for_a_big_card_though_small_ones_are_free(box: GpuBox) -> None:
    box.cards(*used(0, 1, 2, 3))
    ref = box.gpu_job(gpu_memory=60 * GIB)
    box.until_waiting(ref, "waiting for 1 GPU: 0 free of 4; GPU 0 is used without a lease by pid 1 (root)")
    box.cards(*used(0, 1, 2))
    assert box.holds(ref) == [3]
    box.finish(ref)


def test_what_no_card_holds_is_refused_with_the_numbers(server: GpuBox) -> None:
    words = (
        "NoFit: 1 GPUs of one type that hold 100.0 GiB wanted, "
        "and this machine has 4 x a800 of 79.1 GiB, 4 x a40 of 44.4 GiB"
    )
    with pytest.raises(RuntimeError, match=words):
        server.gpu_job(gpu_memory=100 * GIB)


# --- by hand ------------------------------------------------------------------------------------


def test_named_cards_are_taken_in_the_order_named_and_waited_for(server: GpuBox) -> None:
    first = server.gpu_job(gpus=4, gpu_ids=("3", "1", "0", "2"))
    assert server.holds(first) == [3, 1, 0, 2]
    second = server.gpu_job(gpus=0, gpu_ids=("0",))
    server.until_waiting(second, f"waiting for 1 GPU: 0 free of 1; held by {first.run_dir.name}")
    server.finish(first)
    assert server.holds(second) == [0]
    server.finish(second)


def test_a_mixed_set_is_refused_with_the_reason_unless_forced(server: GpuBox) -> None:
    named = {"gpus": 4, "gpu_ids": ("0", "1", "4", "5")}
    words = r"NoFit: the GPUs are of different models: 0, 1 A800 80GB PCIe \(79.1 GiB\), 4, 5 A40 \(44.4 GiB\)"
    with pytest.raises(RuntimeError, match=words):
        server.gpu_job(**named)  # type: ignore[arg-type]
    ref = server.gpu_job(**named, mixed=True)  # type: ignore[arg-type]
    assert server.holds(ref) == [0, 1, 4, 5]
    server.finish(ref)


# --- who ----------------------------------------------------------------------------------------


def test_gpus_shows_which_run_holds_which_cards(server: GpuBox) -> None:
    ref = server.gpu_job(gpus=2, gpu_type="a800")
    server.holds(ref)
    done = subprocess.run(
        [CLUSTERCTL, "gpus", "--json"],
        env=os.environ | server.env | {"PATH": "/nowhere"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    data = json.loads(done.stdout)["data"]
    assert {(lease["uuid"][-1], lease["holder"]) for lease in data["leases"]} == {
        ("0", ref.run_dir.name),
        ("1", ref.run_dir.name),
    }
    assert data["machine"]["pairs"][0] == {"gpus": [0, 1], "nvlinks": 4, "pcie": "NODE"}
    server.finish(ref)


def test_the_holder_is_known_when_its_runner_was_killed(server: GpuBox) -> None:
    ref = server.gpu_job()
    server.holds(ref)
    os.kill(server.local_json(ref).runner.pid, signal.SIGKILL)
    assert [lease.holder for lease in holders()] == [ref.run_dir.name]
    (ref.run_dir / "go").touch()
    wait_until(lambda: holders() == ())
