"""The memory model against traces of the real training step, on small shapes: see benchmarks/memory_trace.py."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.memory_trace import configure
from benchmarks.step_trace import trace
from clusterctl.models.adapter import trainable
from clusterctl.models.find import from_config
from clusterctl.plan.activations import layer
from clusterctl.plan.formats import formats
from clusterctl.plan.memory import moments
from clusterctl.plan.states import Learning
from trainers.config import RunConfig

SMALL = {
    "model_type": "qwen2",
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "vocab_size": 4096,
    "tie_word_embeddings": False,
    "max_position_embeddings": 4096,
}
LORA = {"adapter": "lora"}
ZERO = {"parallel.strategy": "zero3", "parallel.launcher": "torchrun"}
FP32 = {"precision.dtype": "fp32"}


def _configure(stage: str, checkpointing: bool, rows: int, length: int, more: dict[str, Any]) -> RunConfig:
    keys = dict(more)
    return configure(stage, "small", keys.pop("adapter", "none"), checkpointing, rows, length, keys)


@pytest.mark.parametrize(
    ("model_type", "rows", "more"),
    [
        ("qwen2", 2, {}),
        ("qwen2", 1, LORA),
        ("qwen2", 2, ZERO),
        ("qwen2", 1, ZERO | LORA),
        ("qwen2", 1, FP32),
        ("qwen2", 1, LORA | {"model.lora.lora_dropout": 0.1, "model.lora.target_modules": ["q_proj", "v_proj"]}),
        ("qwen2", 2, LORA | {"model.lora.use_dora": True}),
        ("qwen2", 2, {"model.attn_implementation": "eager"}),
        ("qwen3", 1, {}),
        ("gemma3_text", 1, {}),
        ("phi3", 1, ZERO),
    ],
)
def test_a_layer_keeps_what_was_counted(model_type: str, rows: int, more: dict[str, Any]) -> None:
    config = _configure("sft", False, rows, 256, more)
    entries = {**SMALL, "model_type": model_type, "pad_token_id": 0}
    kept = []
    for depth in (2, 3):
        stations = trace(config, {**entries, "num_hidden_layers": depth}).stations
        kept.append(stations["forward"] - stations["before"])
    shape, form = from_config(entries, "small", "a test"), formats(config)
    adapters = trainable(shape, config.model, config.stage) if more.get("adapter") else ()
    # Of weights autocast keeps copies, of adapters' too.
    first = [one for one in shape.parameters if one.linear and ".layers.0." in one.name] if form.copies else []
    if form.autocast:
        first += [one for one in adapters if ".layers.0." in one.name and "magnitude" not in one.name]
    copies = form.compute * sum(one.count for one in first)
    assert layer(config, shape, adapters).token * rows * 256 == pytest.approx(kept[1] - kept[0] - copies, rel=0.01)


@pytest.mark.parametrize(
    ("stage", "checkpointing", "rows", "tied", "more"),
    [
        ("sft", False, 4, False, {}),
        ("sft", True, 4, True, {}),
        ("sft", True, 1, True, {"optim.gradient_accumulation_steps": 1, "optim.optim": "adamw_torch"}),
        ("sft", True, 8, False, LORA),
        ("dpo", True, 2, False, {}),
        ("dpo", False, 2, True, LORA),
    ],
)
def test_the_peak_of_a_step(stage: str, checkpointing: bool, rows: int, tied: bool, more: dict[str, Any]) -> None:
    config = _configure(stage, checkpointing, rows, 512, more)
    entries = {**SMALL, "tie_word_embeddings": tied}
    shape = from_config(entries, "small", "a test")
    learning = Learning(trainable(shape, config.model, config.stage), adapter=config.model.adapter == "lora")
    guess = max(sum(term.size for term in terms) for terms in moments(config, shape, learning))
    assert 0.97 <= guess / trace(config, entries).peak <= 1.10
