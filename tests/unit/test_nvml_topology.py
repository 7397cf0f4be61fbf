"""How NVML's answers become neighbourhoods: bridges, NVSwitch, PCIe switches, memory nodes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from clusterctl.hardware import Machine, Pair
from tests.fake_nvml.build import A40, A800, MIXED_SERVER
from tests.unit.test_nvml import machine


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    hostile = tmp_path / "a'; echo foo"
    hostile.mkdir()
    return hostile


def pairs(answer: Machine) -> dict[tuple[int, int], tuple[int, str | None]]:
    return {pair.gpus: (pair.nvlinks, pair.pcie) for pair in answer.pairs}


def test_the_mixed_server(folder: Path) -> None:
    answer = machine(folder, *MIXED_SERVER)
    assert [gpu.numa_node for gpu in answer.gpus] == [0, 0, 0, 0, 1, 1, 1, 1]
    found = pairs(answer)
    assert len(found) == 28
    assert found[0, 1] == found[2, 3] == (4, "NODE")
    assert found[0, 2] == (0, "NODE")
    assert found[4, 5] == found[6, 7] == (0, "PIX")
    assert found[4, 6] == (0, "NODE")
    assert found[3, 4] == (0, "SYS")


def test_a_bridge_over_three_cards_joins_each_to_each(folder: Path) -> None:
    found = pairs(machine(folder, *[replace(A800, place="numa=0,bridge=7")] * 3, replace(A800, place="numa=0")))
    assert [two for two, (nvlinks, _) in found.items() if nvlinks == 4] == [(0, 1), (0, 2), (1, 2)]


def test_two_cards_that_are_linked_to_a_third_are_not_linked(folder: Path) -> None:
    found = pairs(machine(folder, *(replace(A800, place=f"numa=0,bridge={bits}") for bits in (1, 3, 2))))
    assert {two: nvlinks for two, (nvlinks, _) in found.items()} == {(0, 1): 4, (0, 2): 0, (1, 2): 4}


def test_nvswitch_joins_all_and_the_card_with_fewer_links_decides(folder: Path) -> None:
    sxm = replace(A800, name="NVIDIA A800-SXM4-80GB")
    cards = [replace(sxm, place=f"numa={n // 2},nvswitch={8 if n else 7}") for n in range(4)]
    found = pairs(machine(folder, *cards))
    assert {two: nvlinks for two, (nvlinks, _) in found.items()} == {
        (0, 1): 7, (0, 2): 7, (0, 3): 7, (1, 2): 8, (1, 3): 8, (2, 3): 8,
    }  # fmt: skip


def test_memory_nodes_beyond_the_first_64(folder: Path) -> None:
    assert machine(folder, replace(A40, place="numa=70")).gpus[0].numa_node == 70


@pytest.mark.parametrize("fault", ["lost", "vanish", "reset", "unreadable", "denied"])
def test_a_bad_card_does_not_hide_its_neighbours(folder: Path, fault: str) -> None:
    cards = [replace(A800, place="numa=0,bridge=1") for _ in range(3)]
    answer = machine(folder, cards[0], replace(cards[1], faults=fault), cards[2])
    assert answer.pairs == (Pair((0, 2), 4, "NODE"),)


def test_what_is_not_told_is_not_known(folder: Path) -> None:
    answer = machine(folder, A800, A40)
    assert answer.pairs == ()
    assert [gpu.numa_node for gpu in answer.gpus] == [None, None]
    assert machine(folder, A800, A40, old_driver=True).pairs == ()
