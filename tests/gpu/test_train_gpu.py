"""The trainer on a GPU. Not part of ``make test``: run it by hand where there is one, ``pytest tests/gpu``."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.tiny import make_rows, write_csv, write_run
from tests.train.conftest import losses, progress, torchrun, train, weights


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "data.csv", make_rows())


def test_fp32_agrees_with_the_cpu(tmp_path: Path, data: Path, tiny_model: Path) -> None:
    shape = {"data__validation_split": 0.25, "precision__tf32": False}
    gpu, cpu = tmp_path / "gpu", tmp_path / "cpu"
    ended = train(write_run(gpu, tiny_model, data, parallel__device="cuda", **shape), CUDA_VISIBLE_DEVICES="0")
    assert ended.code == 0, ended.err
    assert progress(gpu)["device"] == "cuda" and progress(gpu)["peak_memory"] > 2**20
    assert train(write_run(cpu, tiny_model, data, parallel__device="cpu", **shape)).code == 0
    assert losses(gpu) == pytest.approx(losses(cpu), rel=1e-3)


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("adapter", ["lora", "none"])
def test_half_precision_learns_and_resumes(
    tmp_path: Path, data: Path, tiny_model: Path, dtype: str, adapter: str
) -> None:
    shape = {"precision__dtype": dtype, "model__adapter": adapter, "optim__max_steps": 30, "parallel__device": "cuda"}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    ended = train(write_run(whole, tiny_model, data, **shape), CUDA_VISIBLE_DEVICES="0")
    assert ended.code == 0, ended.err
    assert losses(whole)[30] < losses(whole)[1]
    run = write_run(parts, tiny_model, data, **shape)
    (parts / "stop").touch()
    assert train(run, CUDA_VISIBLE_DEVICES="0").code == 85
    (parts / "stop").unlink()
    assert train(run, CUDA_VISIBLE_DEVICES="0").code == 0
    assert losses(parts)[30] == pytest.approx(losses(whole)[30], rel=1e-2)


def test_zero2_with_offload(tmp_path: Path, data: Path, tiny_model: Path) -> None:
    parallel = {"launcher": "torchrun", "strategy": "zero2", "offload": "optimizer", "device": "cuda"}
    run = write_run(tmp_path / "run", tiny_model, data, parallel=parallel, precision__dtype="bf16")
    ended = train(run, launcher=torchrun(1), CUDA_VISIBLE_DEVICES="0")
    assert ended.code == 0, ended.err
    assert len(weights(run.parent)) > 1000


@pytest.mark.parametrize(
    ("package", "options"),
    [
        ("bitsandbytes", {"model__quantization": "4bit", "optim__optim": "paged_adamw_8bit"}),
        ("bitsandbytes", {"model__quantization": "8bit"}),
        ("liger_kernel", {"model__use_liger_kernel": True}),
        ("flash_attn", {"model__attn_implementation": "flash_attention_2"}),
        ("torch", {"model__torch_compile": True}),
    ],
)
def test_what_only_gpus_have_learns_as_well(
    tmp_path: Path, data: Path, tiny_model: Path, package: str, options: dict[str, object]
) -> None:
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    shape = {"precision__dtype": "bf16", "parallel__device": "cuda", "optim__max_steps": 16}
    plain, special = tmp_path / "plain", tmp_path / "special"
    assert train(write_run(plain, tiny_model, data, **shape), CUDA_VISIBLE_DEVICES="0").code == 0
    ended = train(write_run(special, tiny_model, data, **shape, **options), CUDA_VISIBLE_DEVICES="0")
    assert ended.code == 0, ended.err
    assert losses(special)[16] == pytest.approx(losses(plain)[16], rel=3e-2)
