"""What learns, as the planner reckons it, against PEFT and our own trainers on the meta device: names and shapes."""

from __future__ import annotations

from typing import Any

import pytest

from clusterctl.errors import UsageProblem
from clusterctl.models import catalogue, find
from clusterctl.models.adapter import lora_parameters, trainable
from clusterctl.models.flops import flops_per_token
from clusterctl.models.shape import HeadName, Shape
from tests.train.meta_models import build
from trainers.config import RunConfig, parse
from trainers.errors import InputProblem
from trainers.model import freeze
from trainers.model.adapter import new_adapter
from trainers.runtime import compute


def config_of(stage: str = "sft", **model: Any) -> RunConfig:
    values = {"stage": stage, "model": {"model_name_or_path": "m", **model}, "data": {"train_files": ["f"]}}
    return parse(values | {"method": {"append_eos": True}} if stage == "stage1" else values)


def two_layers(name: str, head: HeadName) -> tuple[Shape, Any]:
    """A shipped model with two layers, as we know it and as it is."""
    values = dict(catalogue.find(name) or {})
    if "text_config" in values:
        values["text_config"] = values["text_config"] | {"num_hidden_layers": 2}
    else:
        values["num_hidden_layers"] = 2
    return find.from_config(values, name, "config.json", head), build(values, head)


def learning(model: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(weight.shape) for name, weight in model.named_parameters() if weight.requires_grad}


LORA: list[tuple[str, HeadName, dict[str, Any]]] = [
    ("Qwen/Qwen2.5-0.5B", "causal", {}),
    ("Qwen/Qwen2.5-0.5B", "classifier", {}),
    ("Qwen/Qwen2.5-0.5B", "causal", {"target_modules": ["q_proj", "v_proj"], "use_dora": True}),
    ("Qwen/Qwen2.5-0.5B", "causal", {"target_modules": ["embed_tokens"], "use_dora": True}),
    ("Qwen/Qwen2.5-0.5B", "causal", {"target_modules": ["lm_head", "q_proj"]}),
    ("Qwen/Qwen2.5-0.5B", "causal", {"modules_to_save": ["embed_tokens"]}),
    ("Qwen/Qwen2.5-0.5B", "causal", {"modules_to_save": ["lm_head"]}),
    ("Qwen/Qwen2.5-0.5B", "causal", {"modules_to_save": ["norm"]}),
    ("Qwen/Qwen2.5-0.5B", "classifier", {"modules_to_save": ["embed_tokens"]}),
    ("Qwen/Qwen2.5-7B", "causal", {"modules_to_save": ["embed_tokens", "lm_head"]}),
    ("Qwen/Qwen2.5-7B", "causal", {"modules_to_save": ["self_attn"], "target_modules": ["down_proj"]}),
    ("Qwen/Qwen3-4B", "causal", {}),
    ("Qwen/Qwen3-30B-A3B", "causal", {}),
    ("Qwen/Qwen3-30B-A3B", "classifier", {"target_modules": ["q_proj", "down_proj"]}),
    ("Qwen/Qwen3-30B-A3B", "causal", {"target_modules": ["gate_proj", "up_proj"]}),
    ("Qwen/Qwen1.5-MoE-A2.7B", "causal", {}),
    ("mistralai/Mixtral-8x7B-v0.1", "causal", {}),
    ("mistralai/Mixtral-8x7B-v0.1", "causal", {"target_modules": ["w1", "w3", "v_proj"]}),
    ("microsoft/phi-4", "causal", {}),
    ("google/gemma-2-2b", "causal", {}),
    ("google/gemma-3-4b-it", "causal", {}),
    ("openai-community/gpt2", "causal", {"use_dora": True}),
    ("google-bert/bert-base-uncased", "masked", {}),
    ("google-bert/bert-base-uncased", "classifier", {}),
    ("google-bert/bert-base-uncased", "masked", {"modules_to_save": ["decoder"]}),
    ("FacebookAI/roberta-base", "classifier", {}),
    ("FacebookAI/roberta-base", "masked", {"modules_to_save": ["lm_head"]}),
    ("FacebookAI/roberta-base", "masked", {"modules_to_save": ["word_embeddings"]}),
    ("distilbert/distilbert-base-uncased", "classifier", {"target_modules": ["q_lin"]}),
    ("answerdotai/ModernBERT-base", "masked", {}),
]


@pytest.mark.parametrize(("name", "head", "lora"), LORA)
def test_an_adapter_is_the_one_that_peft_makes(name: str, head: HeadName, lora: dict[str, Any]) -> None:
    shape, model = two_layers(name, head)
    config = config_of(lora={"r": 4, **lora})
    ours = lora_parameters(shape, config.model.lora)
    assert {one.name: one.shape for one in ours} == learning(new_adapter(model, config, head))
    assert len({one.name for one in ours}) == len(ours)


@pytest.mark.parametrize("model_type", ["deepseek_v3", "glm4_moe", "olmoe", "starcoder2", "gpt_neox"])
@pytest.mark.parametrize("lora", [{}, {"target_modules": ["q_proj", "q_b_proj", "query_key_value"]}])
def test_an_adapter_on_an_unknown_architecture_is_bounded_too(model_type: str, lora: dict[str, Any]) -> None:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    values = CONFIG_MAPPING[model_type](num_hidden_layers=4).to_dict()
    config = config_of(lora=lora)
    ours = lora_parameters(find.from_config(values, "m", "config.json"), config.model.lora)
    real = new_adapter(build(values, "causal"), config, "causal")
    assert sum(one.count for one in ours) >= sum(w.numel() for w in real.parameters() if w.requires_grad) > 0


REFUSED: list[tuple[str, HeadName, dict[str, Any], str]] = [
    ("Qwen/Qwen2.5-0.5B", "causal", {"target_modules": ["nix"]}, "no module nix"),
    ("Qwen/Qwen2.5-0.5B", "causal", {"modules_to_save": ["nix"]}, "no module nix"),
    ("Qwen/Qwen2.5-0.5B", "classifier", {"modules_to_save": ["lm_head"]}, "no module lm_head"),
    ("Qwen/Qwen3-30B-A3B", "causal", {"lora_dropout": 0.1}, "lora_dropout"),
    ("mistralai/Mixtral-8x7B-v0.1", "causal", {"use_dora": True}, "use_dora"),
    ("Qwen/Qwen3-30B-A3B", "causal", {"target_modules": ["gate_proj"]}, "one weight"),
    ("distilbert/distilbert-base-uncased", "classifier", {}, "pre_classifier"),
]


@pytest.mark.parametrize(("name", "head", "lora", "said"), REFUSED)
def test_what_peft_cannot_make_is_refused(name: str, head: HeadName, lora: dict[str, Any], said: str) -> None:
    shape, model = two_layers(name, head)
    config = config_of(lora=lora)
    with pytest.raises(UsageProblem, match=said):
        lora_parameters(shape, config.model.lora)
    with pytest.raises((InputProblem, TypeError)):
        new_adapter(model, config, head)


FREEZE: list[tuple[str, dict[str, Any]]] = [
    ("Qwen/Qwen2.5-0.5B", {"adapter": "none"}),
    ("Qwen/Qwen2.5-0.5B", {"adapter": "none", "freeze": ["lm_head.weight", "*.1.mlp.*"]}),
    ("Qwen/Qwen2.5-7B", {"adapter": "none", "freeze": ["lm_head*"]}),
    ("Qwen/Qwen2.5-0.5B", {"adapter": "none", "train_only": ["*.bias", "lm_head.weight"]}),
    ("Qwen/Qwen2.5-0.5B", {"freeze": ["*.layers.0.*.lora_A.*", "model.layers.1.mlp.*"]}),
    ("google-bert/bert-base-uncased", {"adapter": "none", "freeze": ["cls.predictions.decoder.*"]}),
]


@pytest.mark.parametrize(("name", "model"), FREEZE)
def test_patterns_choose_what_the_trainers_choose(name: str, model: dict[str, Any]) -> None:
    head: HeadName = "masked" if "bert" in name else "causal"
    shape, real = two_layers(name, head)
    config = config_of(**model)
    if config.model.adapter == "lora":
        real = new_adapter(real, config, head)
    if config.model.freeze:
        freeze.freeze(real, config.model.freeze)
    if config.model.train_only:
        freeze.train_only(real, config.model.train_only)
    assert {one.name: one.shape for one in trainable(shape, config.model, "sft")} == learning(real)


@pytest.mark.parametrize("model", [{"freeze": ["nix*"]}, {"train_only": ["*.nix"]}, {"freeze": ["*"]}])
def test_patterns_that_leave_nothing_are_refused_as_the_trainers_do(model: dict[str, Any]) -> None:
    shape, real = two_layers("Qwen/Qwen2.5-0.5B", "causal")
    config = config_of(adapter="none", **model)
    with pytest.raises(UsageProblem, match=r"nix|no parameter is left"):
        trainable(shape, config.model, "sft")
    with pytest.raises(InputProblem):
        (freeze.freeze if config.model.freeze else freeze.train_only)(real, next(iter(model.values())))


def test_stage1_trains_the_layers_without_positions_alone() -> None:
    shape, _ = two_layers("Qwen/Qwen2.5-0.5B", "causal")
    config = config_of("stage1", adapter="none", rope_free_layers=[1])
    found = trainable(shape, config.model, config.stage)
    assert {one.name.split(".")[2] for one in found} == {"1"}
    assert sum(one.count for one in found) == sum(one.count for one in shape.parameters if ".layers.1." in one.name)


def test_an_adapter_that_goes_on_is_read_from_its_file(tmp_path: Any) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from tests.tiny import make_tiny_model

    folder = make_tiny_model(tmp_path / "m")
    adapted = get_peft_model(
        AutoModelForCausalLM.from_pretrained(folder),
        LoraConfig(r=3, target_modules=["q_proj", "down_proj"], modules_to_save=["norm"], task_type="CAUSAL_LM"),
    )
    adapted.save_pretrained(tmp_path / "run" / "final_model")
    stored = find.stored_adapter(str(tmp_path / "run"))
    assert stored is not None
    assert sum(one.count for one in stored) == sum(w.numel() for w in adapted.parameters() if w.requires_grad)
    shape = find.shape_of(str(folder))
    config = config_of(adapter_name_or_path=str(tmp_path / "run"))
    assert trainable(shape, config.model, "sft", stored) == stored
    assert flops_per_token(shape, config, 32, stored) > flops_per_token(
        shape, config_of(lora={"r": 1, "target_modules": ["k_proj"]}), 32
    )


SAME_WORK: list[tuple[str, dict[str, Any]]] = [
    ("Qwen/Qwen2.5-0.5B", {"adapter": "none"}),
    ("Qwen/Qwen2.5-0.5B", {"lora": {"r": 8}}),
    ("Qwen/Qwen2.5-7B", {"lora": {"r": 8, "target_modules": ["q_proj"]}}),
    ("Qwen/Qwen3-4B", {"adapter": "none", "freeze": ["*.mlp.*"]}),
    ("google/gemma-2-2b", {"adapter": "none", "freeze": ["lm_head.weight"]}),
    ("microsoft/phi-4", {"adapter": "none"}),
    ("google-bert/bert-base-uncased", {"adapter": "none"}),
]


@pytest.mark.parametrize(("name", "model"), SAME_WORK)
def test_the_work_of_a_token_is_what_the_trainers_count(name: str, model: dict[str, Any]) -> None:
    head: HeadName = "masked" if "bert" in name else "causal"
    shape, real = two_layers(name, head)
    config = config_of(**model)
    if config.model.adapter == "lora":
        real = new_adapter(real, config, head)
    if config.model.freeze:
        freeze.freeze(real, config.model.freeze)
    assert flops_per_token(shape, config, 512) == compute.flops_per_token(real, 512)


def test_of_many_experts_those_that_work_are_counted() -> None:
    shape = find.shape_of("Qwen/Qwen3-30B-A3B")
    work = flops_per_token(shape, config_of(adapter="none"), 0) / 6
    # 3.3 billion are active by its model card, 0.3 of them the embedding's look-up.
    assert 2.9e9 < work < 3.1e9
