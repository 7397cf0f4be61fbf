"""What is known of GPU types: the names they go by, their variants, and that the figures agree with each other."""

from __future__ import annotations

import subprocess
import sys

import pytest

from clusterctl.hardware import Gpu
from trainers import hardware

MIB, GIB = 1024**2, 1024**3


def key(name: str, memory: int | None = None) -> str | None:
    """The key of what ``find`` answers."""
    found = hardware.find(name, memory)
    return next((key for key, gpu in hardware.types().items() if gpu == found), None)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("NVIDIA A800 80GB PCIe", "a800"),
        ("NVIDIA A800-SXM4-80GB", "a800_sxm"),
        ("NVIDIA A800 40GB Active", "a800_40gb"),
        ("NVIDIA A40", "a40"),
        ("NVIDIA A100-SXM4-40GB", "a100"),
        ("NVIDIA A100-PCIE-40GB", "a100_40gb_pcie"),
        ("NVIDIA A100-SXM4-80GB", "a100_80gb"),
        ("NVIDIA A100 80GB PCIe", "a100_80gb_pcie"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100_pcie"),
        ("NVIDIA H100 NVL", "h100_nvl"),
        ("NVIDIA H20-3e", "h20_141gb"),
        ("Tesla V100-SXM2-16GB", "v100"),
        ("Tesla V100-PCIE-32GB", "v100_32gb_pcie"),
        ("Tesla V100S-PCIE-32GB", "v100s"),
        ("Tesla P100-SXM2-16GB", "p100_sxm"),
        ("NVIDIA GeForce RTX 3090", "rtx3090"),
        ("NVIDIA GeForce RTX 3090 Ti", "rtx3090ti"),
        ("NVIDIA GeForce RTX 4090 D", "rtx4090d"),
        ("NVIDIA RTX A6000", "a6000"),
        ("NVIDIA RTX 6000 Ada Generation", "rtx6000ada"),
        ("Quadro RTX 6000", "rtx6000"),
        # GRES types and features as sites write them
        ("a800", "a800"),
        ("A100-80", "a100_80gb"),
        ("a100_80g", "a100_80gb"),
        ("gpu_a40", "a40"),
        ("nvidia_a100-sxm4-80gb", "a100_80gb"),
        ("nvidia_h100_80gb_hbm3", "h100"),
        ("rtx_3090", "rtx3090"),
        ("3090", "rtx3090"),
        ("v100-32G", "v100_32gb"),
        # no whole card, or none that is known
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None),
        ("a100_3g.20gb", None),
        ("gpu", None),
        ("a4000", None),
        ("ib", None),
        ("", None),
        ("\x1b[31m跑'; echo", None),
    ],
)
def test_names(name: str, expected: str | None) -> None:
    assert key(name) == expected


def test_every_key_is_found_by_itself_and_named_as_nvml_cards_are() -> None:
    for known, gpu in hardware.types().items():
        assert hardware.find(known) == gpu
        assert gpu.name in hardware.types()
        assert Gpu(0, None, known.upper().replace("_", "-")).gpu_type == gpu.name


def test_measured_memory_tells_variants_apart_and_stands_in_the_answer() -> None:
    assert key("a100", 81920 * MIB) == "a100_80gb"
    assert key("NVIDIA H20", 143771 * MIB) == "h20_141gb"
    ecc_off = hardware.find("NVIDIA A40", 49140 * MIB)
    assert ecc_off is not None
    assert (ecc_off.memory, round(ecc_off.usable / GIB, 1)) == (49140 * MIB, 47.4)
    assert (ecc_off.bf16, ecc_off.inferred) == (149.7e12, ("usable",))


def test_a_part_of_a_card_is_not_the_card() -> None:
    assert hardware.find("GRID A100-10C", 10 * GIB) is None


@pytest.mark.parametrize(
    ("word", "name", "mib", "expected"),
    [
        ("a100", "NVIDIA A100-SXM4-80GB", 81920, True),
        ("a100", "NVIDIA A100-PCIE-40GB", 40960, True),
        ("a100_80gb", "NVIDIA A100-SXM4-80GB", 81920, True),
        ("a100-80", "NVIDIA A100 80GB PCIe", 81920, True),
        ("a100_80gb", "NVIDIA A100-SXM4-40GB", 40960, False),
        ("a100_80gb_pcie", "NVIDIA A100-SXM4-80GB", 81920, False),
        ("a800_40gb", "NVIDIA A800 80GB PCIe", 81920, False),
        ("A800", "NVIDIA A800 80GB PCIe", 81920, True),
        ("3090", "NVIDIA GeForce RTX 3090", 24576, True),
        ("rtx3090", "NVIDIA GeForce RTX 3090 Ti", 24564, False),
        ("h100", "NVIDIA A40", 46068, False),
        ("a100", "NVIDIA A100-SXM4-40GB MIG 3g.20gb", 20096, True),
        ("titanv", "NVIDIA TITAN V", 12288, True),
        ("a40", "NVIDIA TITAN V", 12288, False),
        ("nonsense", "NVIDIA A40", 46068, False),
    ],
)
def test_what_a_word_asks_for(word: str, name: str, mib: int, expected: bool) -> None:
    assert hardware.is_a(word, name, mib * MIB) is expected


def test_the_documents_cards() -> None:
    a40, a800 = hardware.types()["a40"], hardware.types()["a800"]
    assert round(a40.usable / GIB, 1) == 44.4
    assert round(a800.usable / GIB, 1) == 79.1
    assert (a800.half, a40.half, hardware.types()["v100"].half) == (312e12, 149.7e12, 125e12)
    # The link is all that tells the A800 from the A100, and no source says more than that.
    a100, sxm = hardware.types()["a100_80gb"], hardware.types()["a800_sxm"]
    assert (sxm.bf16, sxm.fp32, sxm.bandwidth) == (a100.bf16, a100.fp32, a100.bandwidth)
    assert (sxm.link_bandwidth, a100.link_bandwidth) == (400e9, 600e9)
    assert {"bf16", "bandwidth"} <= set(sxm.inferred)


@pytest.mark.parametrize("known", hardware.types())
def test_figures_agree_with_each_other(known: str) -> None:
    gpu = hardware.types()[known]
    assert gpu.source.startswith("https://")
    assert 0.93 < gpu.usable / gpu.memory < 1
    assert gpu.compute_capability is not None
    assert (gpu.bf16 is not None) == (gpu.compute_capability >= (8, 0))
    assert (gpu.fp8 is not None) == (gpu.compute_capability >= (8, 9))
    assert gpu.half and gpu.fp32 and gpu.half > gpu.fp32 > 5e12
    assert gpu.fp8 is None or gpu.bf16 is None or 1.9 < gpu.fp8 / gpu.bf16 < 2.1
    assert gpu.bandwidth and 300e9 <= gpu.bandwidth <= 8e12
    assert gpu.link in ("nvlink", "pcie")
    assert gpu.link_bandwidth and (gpu.link == "nvlink") == (gpu.link_bandwidth > 128e9)


@pytest.mark.parametrize(
    ("name", "like"), [("a8000", "a800"), ("h1oo", "h100"), ("RTX-4O90", "rtx4090"), ("zzz", None)]
)
def test_nearest(name: str, like: str | None) -> None:
    assert hardware.nearest(name) == like


def test_nothing_heavy_is_loaded() -> None:
    code = "import sys, trainers.hardware as h; h.find('a40'); print(*sys.modules)"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(child.stdout.split())
    assert "trainers.hardware.gpu_types" in loaded
    assert not loaded & {"torch", "numpy", "pydantic", "yaml", "difflib", "clusterctl"}
