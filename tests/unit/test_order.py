"""Longest rows first, once; the best checkpoint; and the arithmetic of MFU."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch


def test_the_longest_rows_come_first_and_all_rows_come_once() -> None:
    from trainers.runtime.order import LongestFirst

    lengths = [3, 9, 1, 8, 2, 7, 4, 6]
    order = LongestFirst(lengths, 2, seed=1)
    first = list(order)
    assert first[:2] == [1, 3]
    assert sorted(first) == list(range(8))
    assert list(order) == first
    order.set_epoch(1)
    assert list(order) != first
    assert sorted(order) == list(range(8))
    assert list(LongestFirst(lengths, 2, seed=2)) != first


def test_lengths_of_rows_are_those_of_all_their_lists() -> None:
    from datasets import Dataset

    from trainers.runtime.order import row_lengths

    rows = Dataset.from_dict({"prompt_ids": [[1, 2], [1]], "chosen_ids": [[1], [1, 2, 3]], "label": [1, 0]})
    assert row_lengths(rows) == [3, 4]
    assert row_lengths(rows.select([1, 0])) == [4, 3]


@pytest.mark.parametrize(
    ("card", "peak"),
    [
        ("NVIDIA A800-SXM4-80GB", 312e12),
        ("NVIDIA A800 80GB PCIe", 312e12),
        ("NVIDIA A40", 149.7e12),
        ("NVIDIA H100 80GB HBM3", 989.4e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA GeForce RTX 4090", 165.2e12),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None),
        ("Some Other Card A400", None),
    ],
)
def test_the_peak_of_a_card(card: str, peak: float | None) -> None:
    from trainers.runtime.compute import peak_flops

    assert peak_flops(card) == peak


def test_a_gpu_that_does_not_say_how_busy_it_is_ends_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    import pynvml

    from trainers.runtime import meter

    def refuse(handle: object) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    monkeypatch.setattr(meter, "_gpu_handle", object)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetUtilizationRates", refuse)
    numbers = meter.Meter()
    numbers.step_done()
    assert "gpu_utilization" not in numbers.take(1, 8)


def test_flops_of_a_token_by_hand() -> None:
    from trainers.runtime.compute import flops_per_token

    model = torch.nn.ModuleDict(
        {"embed": torch.nn.Embedding(100, 8), "up": torch.nn.Linear(8, 16), "lm_head": torch.nn.Linear(8, 100)}
    )
    model.config = SimpleNamespace(num_hidden_layers=1, hidden_size=8)
    attention = 6 * 1 * 8 * 32
    assert flops_per_token(model, 32) == 6 * (8 * 16 + 8 * 100) + attention
    model.requires_grad_(False)
    model["lora_A"] = torch.nn.Linear(8, 2)
    assert flops_per_token(model, 32) == 4 * (8 * 16 + 8 * 100) + 6 * 8 * 2 + attention
    model.config.head_dim, model.config.num_attention_heads = 8, 3
    assert flops_per_token(model, 32) == 4 * (8 * 16 + 8 * 100) + 6 * 8 * 2 + 3 * attention
    model.config.num_experts = 4
    assert flops_per_token(model, 32) is None


def test_the_last_weights_are_measured_too_and_what_is_no_number_is_never_the_best(tmp_path: Path) -> None:
    from trainers.config import Eval
    from trainers.runtime.best import Best

    best = Best(Eval(eval_steps=5, metric_for_best_model="eval_loss"), tmp_path)
    arguments = SimpleNamespace(eval_strategy="steps")
    control = SimpleNamespace(should_evaluate=False, should_save=False)
    best.on_train_begin(arguments, SimpleNamespace(global_step=0), control)
    for step, value in ((5, float("nan")), (7, 2.0), (8, 1.0)):
        state = SimpleNamespace(global_step=step, max_steps=8)
        best.on_step_end(arguments, state, control)
        assert control.should_evaluate == (step == 8)
        best.on_evaluate(arguments, state, control, {"eval_loss": value})
        assert best.step == (None if step == 5 else step)
