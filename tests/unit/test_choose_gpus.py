"""Which GPUs a job gets: examples of the usual machine, and properties of any machine."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterctl.adapters.choose_gpus import candidates, choose, count, visible
from clusterctl.errors import NoFit
from clusterctl.hardware import Gpu, GpuProcess, Pair
from clusterctl.model import Resources

GIB = 1024**3


def card(index: int, name: str = "NVIDIA A40", memory: int = 48, bus: int | None = None, **more: object) -> Gpu:
    bus_id = f"00000000:{0x10 + 8 * index if bus is None else bus:02X}:00.0"
    return Gpu(index, f"GPU-{index:08x}", name, memory * GIB, 0, bus_id=bus_id, **more)  # type: ignore[arg-type]


def a800(index: int, **more: object) -> Gpu:
    return card(index, "NVIDIA A800 80GB PCIe", 80, **more)  # type: ignore[arg-type]


FLEET = (*(a800(i, numa_node=i // 2) for i in range(4)), *(card(i, numa_node=i // 2) for i in range(4, 8)))


def want(number: int = 0, gpu_type: str | None = None, *gpu_ids: str, **more: object) -> Resources:
    return Resources(gpus_per_node=number, gpu_type=gpu_type, gpu_ids=gpu_ids, **more)  # type: ignore[arg-type]


def got(answer: tuple[Gpu, ...] | str) -> list[int]:
    assert not isinstance(answer, str), answer
    return [gpu.index for gpu in answer]


def uuids(*indices: int) -> set[str]:
    return {FLEET[i].uuid or "" for i in indices}


# --- by type ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("busy", "wanted", "indices"),
    [
        ((), want(1), [4]),  # the small ones first
        ((), want(1, "a800"), [0]),
        ((), want(4, "a800"), [0, 1, 2, 3]),
        ((4, 5, 6), want(2), [0, 1]),  # never one of each
        ((0,), want(1, "a800"), [1]),  # node 0 is begun already, node 1 stays whole
        ((0,), want(2, "a800"), [2, 3]),  # both on one node
        ((1, 2), want(2, "a800"), [0, 3]),  # nothing nearer is left
        ((4,), want(3), [5, 6, 7]),
    ],
)
def test_choice(busy: tuple[int, ...], wanted: Resources, indices: list[int]) -> None:
    assert got(choose(FLEET, uuids(*busy), wanted)) == indices


def test_without_memory_nodes_neighbours_on_the_bus_are_near() -> None:
    gpus = [card(0, bus=0x10), card(1, bus=0x40), card(2, bus=0x48), card(3, bus=0x90)]
    assert got(choose(gpus, (), want(2))) == [1, 2]


def test_a_memory_node_counts_more_than_the_bus() -> None:
    gpus = [card(n, bus=bus, numa_node=n // 2) for n, bus in enumerate([0x3B, 0x5E, 0x86, 0xAF])]
    assert got(choose(gpus, {gpus[0].uuid or ""}, want(2))) == [2, 3]


@pytest.mark.parametrize(
    ("busy", "wanted", "words"),
    [
        (range(8), want(1), "0 free of 8"),
        ((0, 1, 2), want(2, "a800"), "1 free of 4"),
        ((0, 4), want(4), "6 free of 8"),  # three of each: enough, but not alike
    ],
)
def test_reasons(busy: range | tuple[int, ...], wanted: Resources, words: str) -> None:
    assert choose(FLEET, uuids(*busy), wanted) == words


def test_cards_that_others_use() -> None:
    process = GpuProcess(4711, GIB, user="alice", command="python")
    used = [card(0, processes=(process, replace(process, pid=4712))), replace(card(1), memory_used=30 * GIB), card(2)]
    assert got(choose(used, (), want(1))) == [2]
    assert choose(used, {used[2].uuid or ""}, want(1)) == (
        "0 free of 3; GPU 0 is used without a lease by pid 4711 (alice) and 1 more"
        "; GPU 1 has its memory taken by a process that cannot be seen from here"
    )
    assert choose(used, {gpu.uuid or "" for gpu in used}, want(1)) == "0 free of 3"


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (want(5), "5 GPUs of one type wanted, and this machine has 4 x a800, 4 x a40"),
        (want(5, "a800"), "5 a800 GPUs wanted, and this machine has 4 x a800, 4 x a40"),
        (want(1, "h100"), "1 h100 GPUs wanted, and this machine has 4 x a800, 4 x a40"),
    ],
)
def test_what_never_fits(wanted: Resources, words: str) -> None:
    with pytest.raises(NoFit) as raised:
        choose(FLEET, (), wanted)
    assert raised.value.message == words
    assert raised.value.hint


def test_broken_cards_do_not_count() -> None:
    gpus = [card(0, problem="lost"), replace(card(1), uuid=None), card(2, mig=True), card(3)]
    assert got(choose(gpus, (), want(1))) == [3]
    with pytest.raises(NoFit, match=r"this machine has 1 x a40 \(GPU 0 cannot be used: lost; GPU 1 "):
        choose(gpus, (), want(2))
    with pytest.raises(NoFit, match=r"this machine has none$"):
        choose([], (), want(1))


JOINED = (
    *(Pair(two, 4, "NODE") for two in [(0, 1), (2, 3)]),
    *(Pair(two, 0, "NODE") for two in [(0, 2), (0, 3), (1, 2), (1, 3), (4, 6), (4, 7), (5, 6), (5, 7)]),
    *(Pair(two, 0, "PIX") for two in [(4, 5), (6, 7)]),
    *(Pair((one, other), 0, "SYS") for one in range(4) for other in range(4, 8)),
)
"""NVLink bridges over 0-1 and 2-3, PCIe switches over 4-5 and 6-7."""


@pytest.mark.parametrize(
    ("busy", "wanted", "indices"),
    [
        ((), want(2, "a800"), [0, 1]),
        ((0,), want(2, "a800"), [2, 3]),  # joined by NVLink, and the other pair is torn already
        ((3,), want(1, "a800"), [2]),
        ((1, 3), want(2, "a800"), [0, 2]),
        ((4,), want(2), [6, 7]),
        ((6,), want(1), [7]),
        ((4,), want(3), [5, 6, 7]),
    ],
)
def test_nvlink_then_switch(busy: tuple[int, ...], wanted: Resources, indices: list[int]) -> None:
    assert got(choose(FLEET, uuids(*busy), wanted, JOINED)) == indices


def test_nvlink_counts_more_than_the_bus_and_the_memory_node() -> None:
    gpus = [card(n, numa_node=n // 2) for n in range(4)]
    assert got(choose(gpus, (), want(2), [Pair((0, 3), 4, "SYS")])) == [0, 3]


def test_the_longest_way_counts_before_the_sum_of_all() -> None:
    """A ring waits for its slowest part: three over one host bridge beat a chain of NVLink with a gap."""
    gpus = [card(index) for index in range(6)]
    pairs = [Pair((0, 1), 4, "NODE"), Pair((1, 2), 4, "NODE"), Pair((0, 2), 0, "SYS")]
    pairs += [Pair(two, 0, "PHB") for two in ((3, 4), (3, 5), (4, 5))]
    assert got(choose(gpus, (), want(3), pairs)) == [3, 4, 5]


# --- by memory ----------------------------------------------------------------------------------


def test_a_card_that_is_too_small_is_no_candidate() -> None:
    assert got(choose(FLEET, (), want(1, gpu_memory=40 * GIB))) == [4]
    assert got(choose(FLEET, (), want(1, gpu_memory=60 * GIB))) == [0]
    assert choose(FLEET, uuids(0, 1, 2, 3), want(1, gpu_memory=60 * GIB)) == "0 free of 4"
    with pytest.raises(NoFit) as raised:
        choose(FLEET, (), want(1, "a40", gpu_memory=60 * GIB))
    assert raised.value.message == (
        "1 a40 GPUs that hold 60.0 GiB wanted, and this machine has 4 x a800 of 79.1 GiB, 4 x a40 of 47.4 GiB"
    )
    with pytest.raises(NoFit, match=r"GPU 5 \(a40\) holds 47.4 GiB, and the job needs 60.0 GiB"):
        choose(FLEET, (), want(0, None, "5", gpu_memory=60 * GIB))


def test_a_card_that_does_not_tell_its_memory_may_be_large_enough() -> None:
    assert got(choose([replace(card(0), memory_total=None)], (), want(1, gpu_memory=60 * GIB))) == [0]


def test_two_models_of_one_type_are_not_mixed() -> None:
    gpus = [card(0, "NVIDIA A100-SXM4-80GB", 80), card(1, "NVIDIA A100-SXM4-40GB", 40)]
    with pytest.raises(NoFit):
        choose(gpus, (), want(2, "a100"))
    assert got(choose(gpus, (), want(1, "a100"))) == [1]


# --- by hand ------------------------------------------------------------------------------------


def test_by_index_and_uuid_in_the_order_given() -> None:
    assert got(choose(FLEET, (), want(0, None, "5", "GPU-00000004"))) == [5, 4]
    assert got(choose(FLEET, (), want(2, "a800", "3", "0"))) == [3, 0]
    assert choose(FLEET, uuids(5), want(0, None, "5", "6")) == "1 free of 2"
    assert count(want(0, None, "5", "1")) == 2


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (want(0, None, "8"), "GPU '8' is not one of this machine's"),
        (want(0, None, "GPU-"), "GPU 'GPU-' is not one of this machine's"),
        (want(0, None, ""), "GPU '' is not one of this machine's"),
        (want(0, None, "-1"), "GPU '-1' is not one of this machine's"),
        (want(0, None, "1", "1"), "GPU 1 is named twice"),
        (want(0, "a40", "1"), "GPU 1 is of type a800, not a40"),
        (want(1, None, "1", "2"), "1 GPUs wanted, and 2 are named: 1, 2"),
    ],
)
def test_names_that_do_not_fit(wanted: Resources, words: str) -> None:
    with pytest.raises(NoFit) as raised:
        choose(FLEET, (), wanted)
    assert raised.value.message.startswith(words)


def test_mixed_cards_are_refused_with_the_reason_unless_forced() -> None:
    with pytest.raises(NoFit) as raised:
        choose(FLEET, (), want(0, None, "0", "1", "4"))
    assert raised.value.message == (
        "the GPUs are of different models: 0, 1 A800 80GB PCIe (79.1 GiB), 4 A40 (47.4 GiB)"
    )
    assert "slowest" in raised.value.hint
    assert "--mixed" in raised.value.hint
    assert got(choose(FLEET, (), want(0, None, "0", "1", "4", mixed=True))) == [0, 1, 4]


def test_a_slice_is_given_only_by_name() -> None:
    split = replace(card(0), mig=True)
    part = replace(card(0), uuid="MIG-1", name="NVIDIA A40 MIG 1g.6gb")
    with pytest.raises(NoFit, match="none"):
        choose([split, part], (), want(1))
    with pytest.raises(NoFit, match="split by MIG"):
        choose([split, part], (), want(0, None, "0"))
    assert choose([split, part], (), want(0, None, "MIG-1")) == (part,)
    with pytest.raises(NoFit, match="cannot be used: lost"):
        choose([card(0, problem="lost")], (), want(0, None, "0"))


# --- CUDA_VISIBLE_DEVICES -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "indices"),
    [
        (None, [0, 1, 2, 3, 4, 5, 6, 7]),
        ("", []),
        ("-1", []),
        ("5,1", [5, 1]),
        (" 5 , GPU-00000001", [5, 1]),
        ("0,9,1", [0]),
        ("0,NoDevice,1", [0]),
        ("GPU-0000000", []),
    ],
)
def test_visible(value: str | None, indices: list[int]) -> None:
    assert [gpu.index for gpu in visible(FLEET, value)] == indices


def test_visible_integers_count_along_the_bus() -> None:
    gpus = [card(0, bus=0x90), card(1, bus=0x10), replace(card(1), uuid="MIG-1")]
    assert [gpu.index for gpu in visible(gpus, "0,1")] == [1, 0]


# --- any machine --------------------------------------------------------------------------------

MODELS = st.sampled_from([("NVIDIA A800 80GB PCIe", 80), ("NVIDIA A40", 48), ("Tesla V100-SXM2-32GB", 32)])
STATES = st.sampled_from(["fine", "fine", "fine", "busy", "used", "broken", "bare"])


@st.composite
def machines(draw: st.DrawFn) -> tuple[list[Gpu], set[str], list[Pair]]:
    gpus, busy = [], set()
    for index in range(draw(st.integers(0, 10))):
        gpu = card(index, *draw(MODELS), bus=draw(st.integers(1, 255)))
        match draw(STATES):
            case "busy":
                busy.add(gpu.uuid or "")
            case "used":
                gpu = replace(gpu, processes=(GpuProcess(1, None),))
            case "broken":
                gpu = replace(gpu, problem="lost")
            case "bare":
                gpu = replace(gpu, bus_id=None, memory_total=None)
        gpus.append(replace(gpu, numa_node=draw(st.sampled_from([None, 0, 1]))))
    joined = draw(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)).filter(lambda two: two[0] < two[1])))
    ways = st.sampled_from([(4, None), (0, "PIX"), (0, "SYS"), (12, "NODE")])
    return gpus, busy, [Pair(two, *draw(ways)) for two in dict.fromkeys(joined)]  # type: ignore[arg-type]


@given(machines(), st.integers(1, 10), st.sampled_from([None, "a800", "a40", "v100"]))
def test_properties(machine: tuple[list[Gpu], set[str], list[Pair]], number: int, gpu_type: str | None) -> None:
    gpus, busy, pairs = machine
    idle: dict[str | None, int] = {}
    for gpu in gpus:
        if gpu.usable and not gpu.busy and gpu.uuid not in busy and gpu_type in (None, gpu.gpu_type):
            idle[gpu.name] = idle.get(gpu.name, 0) + 1
    possible = any(n >= number for n in idle.values())
    try:
        answer = choose(gpus, busy, want(number, gpu_type), pairs)
    except NoFit:
        assert not possible
        with pytest.raises(NoFit):
            candidates(gpus, want(number, gpu_type))
        return
    assert isinstance(answer, str) is not possible
    if not isinstance(answer, str):
        assert len(answer) == len(set(answer)) == number
        assert len({gpu.name for gpu in answer}) == 1
        assert all(gpu.usable and not gpu.busy and gpu.uuid not in busy for gpu in answer)
        assert answer == choose(list(reversed(gpus)), busy, want(number, gpu_type), pairs)
