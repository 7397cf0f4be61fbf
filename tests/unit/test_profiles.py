"""Profiles by name: what a name says, which names there are to choose from, and what a wrong one is answered with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterctl import compose, profiles
from clusterctl.errors import ClusterctlError, NoFit, Unavailable, UsageProblem
from clusterctl.plan.inventory import Inventory, Offer
from clusterctl.profiles import Asked
from clusterctl.schema import Profile

A800 = Offer("a800", None, nodes=2, gpus_per_node=4, total=8, free=8)
A40 = Offer("a40", None, nodes=1, gpus_per_node=4, total=4, free=4)
SLURM = Inventory("slurm", (A800, A40))
SERVER = Inventory("local", (replace(A800, nodes=1, total=4), A40))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["a800", "a40", "h100", "gpu", "v100"]),
    st.integers(1, 64),
    st.integers(1, 9),
    st.sampled_from(["", "ddp", "zero1", "zero2", "zero3", "fsdp"]),
    st.booleans(),
)
def test_every_sensible_name_is_a_profile(word: str, gpus: int, nodes: int, strategy: str, offload: bool) -> None:
    machines = f"{nodes}x" if nodes > 1 else ""
    name = f"{word}-{machines}{gpus}" + (f"-{strategy}" if strategy else "")
    alone = gpus * nodes == 1
    if (offload and strategy in ("", "ddp")) or (alone and strategy == "fsdp"):
        return
    name += "-offload" if offload else ""
    profile = Profile(**profiles.find(name).values)
    assert (profile.gpu_type, profile.gpus_per_node, profile.nodes) == (None if word == "gpu" else word, gpus, nodes)
    assert profile.strategy == (strategy or ("single" if alone else "ddp"))
    assert profile.offload == ("none" if not offload else "all" if strategy in ("zero3", "fsdp") else "optimizer")
    assert profiles.find(name.upper()).values == profiles.find(name).values


@pytest.mark.parametrize(
    ("name", "words", "hint"),
    [
        ("a8000-4", "a8000 is no known type", "a800-4"),
        ("a800-4-zero4", "zero4 is no strategy", "a800-4-zero3"),
        ("a800-0", "has no GPUs", "cpu"),
        ("a800-0x4", "has no GPUs", "cpu"),
        ("a800-4-ddp-offload", "has no offload", "a800-4-zero3-offload"),
        ("a80", "unknown profile 'a80'", "a800-1"),
        ("cpu-ofload", "unknown profile", "cpu-offload"),
        ("nope", "unknown profile", "TYPE-[NODESx]GPUS"),
        ("a800-65", "less than or equal to 64", "correct what is named"),
        ("a800-" + "9" * 5000, "less than or equal to 64", ""),
        ("a800-20000x4", "less than or equal to 10000", ""),
        ("a800-٤", "unknown profile", ""),
        ("a800-4\n", "unknown profile", ""),
        ("", "unknown profile", ""),
    ],
)
def test_a_wrong_name_is_answered_with_the_nearest(name: str, words: str, hint: str) -> None:
    with pytest.raises(UsageProblem) as raised:
        compose.read_profile(name)
    assert words in raised.value.message
    assert hint in (raised.value.hint or "")


def test_a_file_of_that_name_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert compose.read_profile("a800-4").strategy == "ddp"
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles/a800-4.yaml").write_text("gpu_type: ours\ngpus_per_node: 1\n", encoding="utf-8")
    assert (compose.read_profile("a800-4").gpu_type, profiles.find("a800-4").path) != ("a800", None)
    assert compose.read_profile("a800-4").gpu_type == "ours"
    assert compose.read_profile("a800-4-zero3").gpu_type == "a800"


def test_what_there_is_to_choose_from() -> None:
    names = profiles.candidates(SLURM, Asked())
    assert {"a800-1", "a40-1", "a800-2", "a40-4-zero3", "a800-4-zero3-offload", "a800-2x4-zero3"} <= set(names)
    assert not {"cpu", "a800-8", "a40-8", "a40-2x4-zero3", "a800-3"} & set(names)
    assert names[-1] == "a800-2x4-zero3", "a second node comes last"
    assert names.index("a40-4") < names.index("a40-1-zero2-offload")
    for name in names:
        compose.read_profile(name)
    assert not [name for name in profiles.candidates(SERVER, Asked()) if "x" in name]
    six = Inventory("local", (replace(A40, gpus_per_node=6),))
    assert {name.split("-")[1] for name in profiles.candidates(six, Asked())} == {"1", "2", "4", "6"}


def test_what_is_asked_for_narrows_the_choice() -> None:
    assert {name.split("-")[0] for name in profiles.candidates(SLURM, Asked(gpu_type="a40"))} == {"a40"}
    both = profiles.candidates(SLURM, Asked(gpu_type="a40", gpus=2))
    assert both == ["a40-2", "a40-2-zero2", "a40-2-zero3", "a40-2-zero3-offload"]
    assert profiles.candidates(SLURM, Asked(gpus=8)) == ["a800-2x4-zero3"]
    mixed = profiles.candidates(SERVER, Asked(gpus=6, gpu_ids=tuple("012345"), mixed=True))
    assert {name.split("-")[0] for name in mixed} == {"gpu"}


def test_words_of_a_cluster_for_a_type_that_is_known() -> None:
    """The request has to say the cluster's own word."""
    own = Inventory("slurm", (replace(A800, gpu_type="nvidia_a800"),))
    names = profiles.candidates(own, Asked(gpu_type="a800", gpus=1))
    assert names[0] == "nvidia_a800-1"
    assert compose.read_profile(names[0]).gpu_type == "nvidia_a800"
    strange = Inventory("slurm", (replace(A800, gpu_type="Xpu 9"),))
    assert profiles.candidates(strange, Asked(gpus=1))[0] == "gpu-1"


@pytest.mark.parametrize(
    ("inventory", "asked", "kind", "words"),
    [
        (SLURM, Asked(gpus=16), NoFit, r"16 GPUs together .*a800: 2 nodes with 4; a40: 1 node with 4"),
        (SLURM, Asked(gpu_type="a40", gpus=8), NoFit, "8 GPUs together"),
        (SLURM, Asked(gpu_type="h100"), NoFit, r"no H100 .*a800: 2 nodes with 4"),
        (Inventory("slurm", (), "no answer"), Asked(), Unavailable, "not known: no answer"),
        (Inventory("local", (), "no driver"), Asked(gpus=1), Unavailable, "no driver"),
        (Inventory("local", ()), Asked(gpu_type="a40"), NoFit, "no A40"),
    ],
)
def test_what_cannot_be_had(inventory: Inventory, asked: Asked, kind: type[ClusterctlError], words: str) -> None:
    with pytest.raises(kind, match=words):
        profiles.candidates(inventory, asked)


def test_cpu_is_for_where_there_is_no_gpu_at_all() -> None:
    assert profiles.candidates(Inventory("local", (), "no driver"), Asked()) == ["cpu"]
    assert profiles.candidates(Inventory("slurm", ()), Asked()) == ["cpu"]
    drained = Inventory("slurm", (replace(A40, gpus_per_node=0, free=0, out=4, why_out="fan"),))
    for asked in (Asked(), Asked(gpus=1)):
        with pytest.raises(NoFit, match="4 a40 take no work: fan"):
            profiles.candidates(drained, asked)
