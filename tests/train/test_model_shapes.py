"""What the planner believes of a model's parameters, against transformers' own classes, to the last one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from clusterctl.models import catalogue, find
from clusterctl.models.families import FAMILIES
from clusterctl.models.shape import HeadName
from tests.train.meta_models import build, differences

SHIPPED = [next(iter(entry["names"])) for entry in json.loads(catalogue.FILE.read_text(encoding="utf-8"))["models"]]
"""One name of each configuration."""

SMALL = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 4}
PICTURES = {"hidden_size": 32, "intermediate_size": 56, "num_hidden_layers": 2, "num_attention_heads": 2}
VARIANTS: list[dict[str, Any]] = [
    *({"model_type": name} for name in sorted(FAMILIES) if name not in ("gemma3", "distilbert", "gpt2")),
    {"model_type": "llama", "attention_bias": True, "mlp_bias": True, "head_dim": 20, "num_key_value_heads": 2},
    {"model_type": "llama", "tie_word_embeddings": True, "num_key_value_heads": None, "head_dim": None},
    {"model_type": "qwen2", "num_key_value_heads": 1, "tie_word_embeddings": True},
    {"model_type": "qwen3", "attention_bias": True, "num_key_value_heads": 2, "head_dim": 24},
    {"model_type": "qwen2_moe", "qkv_bias": False, "mlp_only_layers": [1], "num_experts": 6},
    {"model_type": "qwen3_moe", "decoder_sparse_step": 2, "num_experts": 6, "moe_intermediate_size": 16},
    {"model_type": "qwen3_moe", "attention_bias": True, "num_local_experts": 5, "num_experts_per_tok": 3},
    {"model_type": "mixtral", "num_local_experts": 3, "head_dim": 8},
    {"model_type": "mistral", "head_dim": 20, "num_key_value_heads": 4},
    {"model_type": "gemma2", "tie_word_embeddings": False, "attention_bias": True},
    {"model_type": "phi3", "num_key_value_heads": 2},
    {"model_type": "olmo2", "num_key_value_heads": 2, "attention_bias": True},
    {"model_type": "bert", "tie_word_embeddings": False, "type_vocab_size": 3},
    {"model_type": "roberta", "tie_word_embeddings": False, "max_position_embeddings": 70},
    {"model_type": "modernbert", "norm_bias": True, "attention_bias": True, "mlp_bias": True, "decoder_bias": False},
    {"model_type": "modernbert", "tie_word_embeddings": False, "classifier_bias": True},
]
OTHER_WORDS: list[dict[str, Any]] = [
    {"model_type": "distilbert", "dim": 48, "hidden_dim": 80, "n_layers": 2, "n_heads": 4, "vocab_size": 99},
    {
        "model_type": "distilbert",
        "dim": 48,
        "hidden_dim": 80,
        "n_layers": 2,
        "n_heads": 4,
        "tie_word_embeddings": False,
    },
    {"model_type": "gpt2", "n_embd": 48, "n_layer": 2, "n_head": 4, "n_inner": 64, "n_positions": 30},
    {"model_type": "gpt2", "n_embd": 48, "n_layer": 2, "n_head": 4, "tie_word_embeddings": False},
    {
        "model_type": "gemma3",
        "text_config": SMALL | {"model_type": "gemma3_text"},
        "vision_config": PICTURES | {"image_size": 56, "patch_size": 14, "vision_use_head": False},
    },
]


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_configuration_is_the_real_model(name: str) -> None:
    shape = find.shape_of(name)
    model = build(catalogue.find(name) or {}, shape.head)
    assert differences(shape, model) == []
    assert shape.exact
    assert shape.total == sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize("values", [*(SMALL | one for one in VARIANTS), *OTHER_WORDS], ids=str)
@pytest.mark.parametrize("classifier", [False, True])
def test_every_family_with_what_a_config_leaves_out(values: dict[str, Any], classifier: bool) -> None:
    head: HeadName | None = "classifier" if classifier else None
    shape = find.from_config(values, "m", "config.json", head)
    assert shape.exact
    model = build(values, shape.head)
    assert differences(shape, model) == []
    output = None if classifier else model.get_output_embeddings()
    assert shape.output_layer == next((name for name, one in model.named_modules() if one is output), "")
    assert shape.tie_word_embeddings == (output is not None and output.weight is model.get_input_embeddings().weight)
    assert shape.vocab_size == model.get_input_embeddings().num_embeddings == shape.embedding.shape[0]


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "gemma3_text", "bert"])
def test_linear_parameters_are_those_of_linear_layers(model_type: str) -> None:
    import torch

    values = SMALL | {"model_type": model_type}
    shape = find.from_config(values, "m", "config.json")
    model = build(values, shape.head)
    linear = {name for name, one in model.named_modules() if isinstance(one, torch.nn.Linear)}
    ours = {one.name.rpartition(".")[0] for one in shape.parameters if one.linear}
    assert ours == linear - ({shape.output_layer} if shape.tie_word_embeddings else set())


def test_a_config_that_transformers_saved_is_read_back(tmp_path: Any) -> None:
    from transformers import Qwen3MoeConfig

    config = Qwen3MoeConfig(**SMALL, num_experts=4, num_experts_per_tok=2, rope_parameters={"rope_theta": 1e6})
    config.save_pretrained(tmp_path)
    shape = find.shape_of(str(tmp_path))
    assert differences(shape, build(config.to_dict(), "causal")) == []
    assert (shape.num_experts, shape.num_experts_per_tok) == (4, 2)


UNKNOWN = [
    "deepseek_v3", "qwen3_next", "glm4_moe", "gpt_oss", "cohere2", "falcon", "opt", "gpt_neox", "gemma3n_text",
    "granitemoe", "starcoder2", "phi", "bamba", "olmoe", "deberta-v2", "exaone4",
]  # fmt: skip


@pytest.mark.parametrize("model_type", UNKNOWN)
def test_the_bound_of_an_unknown_architecture_is_not_below_the_truth(model_type: str) -> None:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    values = CONFIG_MAPPING[model_type]().to_dict()
    shape = find.from_config(values, "m", "config.json")
    assert not shape.exact
    assert model_type in shape.notes[0]
    real = sum(weight.numel() for weight in build(values, "masked" if "bert" in model_type else "causal").parameters())
    assert real <= shape.total < 2.5 * real
