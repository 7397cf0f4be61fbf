"""The picture of a machine, read off a terminal of 80 columns without colour."""

from __future__ import annotations

import time
from dataclasses import replace

from clusterctl.hardware import Gpu, GpuProcess, Lease, Machine, Pair
from clusterctl.views.gpus import machine_view
from tests.unit.test_gpus_view import gpu, row, show

GIB = 1024**3

BRIDGES = tuple(Pair(two, 4, "NODE") for two in [(0, 1), (2, 3)])
SWITCHES = tuple(Pair(two, 0, "PIX") for two in [(4, 5), (6, 7)])


def a40(index: int, **fields: object) -> Gpu:
    return gpu(index, name="NVIDIA A40", memory_total=46068 * 1024**2, numa_node=1, **fields)


def server(*changed: Gpu) -> Machine:
    cards = {i: gpu(i, numa_node=0) for i in range(4)} | {i: a40(i) for i in range(4, 8)}
    cards |= {card.index: card for card in changed}
    return Machine("server", "550.163.01", "12.4", tuple(cards.values()), pairs=BRIDGES + SWITCHES)


def lease(card: Gpu, holder: str, user: str = "li") -> Lease:
    return Lease(card.uuid or "", user, holder, time.time() - 7500)


def cut(line: str) -> list[str]:
    """The cells of a line of the picture."""
    return [line[start : start + 20].strip() for start in range(0, 80, 20)]


def test_the_mixed_server() -> None:
    process = GpuProcess(7, GIB, "wang", "python")
    busy = gpu(0, numa_node=0, memory_used=60 * GIB, utilization=97)
    used = a40(4, memory_used=4 * GIB, utilization=5, processes=(process,))
    lines = show(machine_view(server(busy, gpu(3, numa_node=0, problem="lost"), used), [lease(busy, "sft-1123-a3f9")]))
    assert lines[0].endswith("5 free, 2 in use, 1 unusable")
    assert lines[2:13] == [
        "NUMA node 0",
        "0 a800 ════════════ 1 a800              2 a800 ════════════ 3 a800",
        "in use, 97%         free                free                unusable",
        "19.1 GiB free       79.1 GiB free       79.1 GiB free",
        "sft-1123-a3f9",
        "NUMA node 1",
        "4 a40 ───────────── 5 a40               6 a40 ───────────── 7 a40",
        "in use, 5%          free                free                free",
        "40.4 GiB free       44.4 GiB free       44.4 GiB free       44.4 GiB free",
        "wang, no lease",
        "══ NVLink: 0-1, 2-3 (4 links each)",
    ]
    assert lines[13] == "── the same PCIe switch: 4-5, 6-7"
    assert row(lines, "held:") == "held: GPU 0: sft-1123-a3f9 (li), for 2h 05m"


def test_a_leased_card_is_in_use_before_its_job_has_loaded_anything() -> None:
    lines = show(machine_view(server(), [lease(server().gpus[2], "sft")]))
    assert cut(lines[4])[2] == "in use, 0%"
    assert row(lines, "2 GPU-00000002").endswith(" in use")


def test_one_run_on_several_cards_is_said_once() -> None:
    gpus = server().gpus
    lines = show(machine_view(server(), [lease(gpus[4], "dpo"), lease(gpus[5], "dpo"), lease(gpus[6], "dpo", "wu")]))
    assert [line for line in lines if line.startswith("held")] == [
        "held: GPUs 4, 5: dpo (li), for 2h 05m",
        "held: GPU 6: dpo (wu), for 2h 05m",
    ]


def test_eight_cards_behind_nvswitch_stand_in_two_rows_and_the_legend_says_what_joins_the_rows() -> None:
    pairs = tuple(Pair((a, b), 8 - (a == 0), "SYS") for a in range(8) for b in range(a + 1, 8))
    machine = replace(server(), gpus=tuple(gpu(i) for i in range(8)), pairs=pairs)
    lines = show(machine_view(machine))
    assert [cut(line)[0][:1] for line in lines[2:8]] == ["0", "f", "7", "4", "f", "7"]
    assert lines[8] == "══ NVLink: 0-1-2-3-4-5-6-7 (7-8 links each)"


def test_one_card_needs_no_picture() -> None:
    lines = show(machine_view(Machine("server", None, None, (gpu(0, numa_node=0),))))
    assert not any("NUMA" in line for line in lines)


def test_hostile_and_long_words_stay_in_their_cells() -> None:
    hostile = gpu(0, name="NVIDIA \x1b[31mA" + "x" * 40 + "8", memory_used=60 * GIB, numa_node=0)
    leases = [lease(hostile, "\x1b]0;跑'; echo \"$x\n" + "y" * 60), lease(server().gpus[1], "dpo")]
    lines = show(machine_view(server(hostile), leases))
    assert not any(c in line for line in lines for c in "\x1b\n")
    assert cut(lines[3])[1:3] == ["1 a800", "2 a800 ════════════"]
    assert cut(lines[4]) == ["in use, 0%", "in use, 0%", "free", "free"]
    # The wide character takes two columns and counts as one here.
    assert lines[6].startswith("?]0;跑'; echo") and lines[6][16:].lstrip("y") == "…  dpo"


def test_a_split_card_is_drawn_once() -> None:
    parent = gpu(0, mig=True, numa_node=0)
    instance = replace(parent, mig=False, uuid="MIG-1")
    machine = replace(server(), gpus=(parent, instance, gpu(1, numa_node=0)))
    lines = show(machine_view(machine))
    assert cut(lines[3])[:2] == ["0 a800 ════════════", "1 a800"]
    assert cut(lines[4])[:2] == ["split by MIG", "free"]
