"""Positions that differ from the model's own: their effect on logits, and that no way of loading loses them."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen2ForCausalLM, SmolLM3Config

from tests.tiny import write_run
from tests.train.here import config, train_here
from trainers.errors import InputProblem
from trainers.model import rope
from trainers.model.fit import check_exportable, check_fit, read_config
from trainers.model.load import load_model, load_trained
from trainers.model.reference import load_reference

TOKENS = torch.tensor([[5, 9, 301, 44, 12, 270, 31, 8]])


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=TOKENS).logits[0]


def test_a_layer_without_positions_sees_a_set_of_words() -> None:
    torch.manual_seed(0)
    one = Qwen2Config(
        vocab_size=400, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2,
    )  # fmt: skip
    model = Qwen2ForCausalLM(one).eval()
    shuffled = TOKENS[:, [3, 0, 6, 1, 5, 2, 4, 7]]
    with torch.no_grad():
        ordered = model(input_ids=TOKENS).logits[0, -1]
        assert not torch.allclose(model(input_ids=shuffled).logits[0, -1], ordered, atol=1e-4)
        model.config.rope_free_layers = [0]
        rope.apply(model)
        ordered = model(input_ids=TOKENS).logits[0, -1]
        assert torch.allclose(model(input_ids=shuffled).logits[0, -1], ordered, atol=1e-5)


def test_rope_free_layers_travel_with_the_saved_model(tmp_path: Path, tiny_model: Path) -> None:
    usual = logits(load_model(config(tiny_model, model={"adapter": "none"})))
    model = load_model(config(tiny_model, model={"adapter": "none", "rope_free_layers": [1]}))
    changed = logits(model)
    assert not torch.allclose(changed, usual, atol=1e-5)

    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["rope_free_layers"] == [1]
    assert torch.equal(logits(load_trained(str(tmp_path))), changed)
    assert torch.equal(logits(load_model(config(tmp_path, model={"adapter": "none"}))), changed)
    assert torch.equal(logits(load_reference(config(tmp_path, model={"adapter": "none"}))), changed)
    assert torch.equal(logits(load_model(config(tmp_path, model={"gradient_checkpointing": True}))), changed)
    # What transformers alone makes of it, and other programs: positions everywhere.
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path)), usual)

    # Generation with a cache says what the whole forward pass says.
    said = load_trained(str(tmp_path)).generate(TOKENS, max_new_tokens=6, do_sample=False, eos_token_id=None)
    with torch.no_grad():
        whole = model(input_ids=said).logits[0].argmax(-1)
    assert torch.equal(said[0, TOKENS.shape[1] :], whole[TOKENS.shape[1] - 1 : -1])

    with pytest.raises(InputProblem, match=r"rope_free_layers \[0\]: this model was trained with \[1\]"):
        load_model(config(tmp_path, model={"rope_free_layers": [0]}))
    with pytest.raises(InputProblem, match=r"vLLM would give positions to layers \[1\]"):
        check_exportable(read_config(config(tmp_path).model), "vLLM")


def test_an_adapter_keeps_the_positions_of_its_base(folder: Path, data: Path, tiny_model: Path) -> None:
    first, second = folder / "first", folder / "second"
    train_here(write_run(first, tiny_model, data, model__rope_free_layers=[0], model__rope_theta=5e5))
    kept = json.loads((first / "final_model/rope.json").read_text())
    assert kept["rope_free_layers"] == [0] and kept["rope_parameters"]["rope_theta"] == 5e5
    assert not (first / "final_model/config.json").exists()

    trained = load_trained(str(first))
    goes_on = load_model(config(tiny_model, model={"adapter_name_or_path": str(first)}))
    assert torch.equal(logits(goes_on), logits(trained))
    merged = trained.merge_and_unload()
    merged.save_pretrained(folder / "merged")
    assert torch.allclose(logits(load_trained(str(folder / "merged"))), logits(goes_on), atol=1e-5)

    train_here(write_run(second, tiny_model, data, model__adapter_name_or_path=str(first), optim__max_steps=1))
    assert json.loads((second / "final_model/rope.json").read_text()) == kept
    with pytest.raises(InputProblem, match=r"this model was trained with \[0\]"):
        load_model(config(tiny_model, model={"adapter_name_or_path": str(first), "rope_free_layers": [1]}))
    load_model(config(tiny_model, model={"adapter": "none", "rope_free_layers": [1]})).save_pretrained(folder / "other")
    with pytest.raises(InputProblem, match=r"trained with RoPE-free layers \[0\], and its base has \[1\]"):
        load_model(config(folder / "other", model={"adapter_name_or_path": str(first)}))


def test_theta_and_scaling_reach_the_angles(tmp_path: Path, tiny_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    wanted = {"adapter": "none", "rope_theta": 5e5, "rope_scaling": {"rope_type": "linear", "factor": 4}}
    with caplog.at_level(logging.INFO, logger="trainers"):
        model = load_model(config(tiny_model, model=wanted))
    assert "model.rope_scaling has no use: data.max_length 64 is within the 512 positions" in caplog.text
    # https://arxiv.org/abs/2104.09864, equation 15, and positions divided by the factor.
    angles = torch.tensor([5e5 ** (-2 * pair / 16) / 4 for pair in range(8)])
    assert torch.allclose(model.model.rotary_emb.inv_freq, angles)
    assert model.config.max_position_embeddings == 2048

    model.save_pretrained(tmp_path)
    saved = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.allclose(saved.model.rotary_emb.inv_freq, angles)
    caplog.clear()
    # Asked for again by the next stage, it is not done twice.
    again = load_model(config(tmp_path, model=wanted, data={"train_files": ["none.csv"], "max_length": 1000}))
    assert again.config.max_position_embeddings == 2048 and torch.allclose(again.model.rotary_emb.inv_freq, angles)
    assert "no use" not in caplog.text

    yarn = load_model(config(tiny_model, model={"rope_scaling": {"factor": 2}})).config
    assert (yarn.rope_parameters["rope_type"], yarn.max_position_embeddings) == ("yarn", 1024)
    assert yarn.rope_parameters["original_max_position_embeddings"] == 512
    yarn.rope_parameters["beta_fast"] = 16.0
    asked = config(tiny_model, model={"rope_scaling": {"factor": 2}, "rope_theta": 5e4}).model
    assert rope.prepare(asked, yarn)["rope_parameters"]["beta_fast"] == 16.0
    assert yarn.max_position_embeddings == 1024
    dynamic = load_model(config(tiny_model, model={"rope_scaling": {"factor": 2, "rope_type": "dynamic"}}))
    assert dynamic.config.max_position_embeddings == 512
    long = torch.arange(900)[None] % 400
    with torch.no_grad():
        dynamic(input_ids=long)
    base = 10000 * (2 * 900 / 512 - 1) ** (16 / 14)
    assert math.isclose(dynamic.base_model.model.model.rotary_emb.inv_freq[1].item(), base ** (-2 / 16), rel_tol=1e-4)


def test_what_cannot_lose_its_positions_is_refused_before_it_is_loaded(tiny_model: Path) -> None:
    def refused(base: dict[str, object], words: str, **model: object) -> None:
        with pytest.raises(InputProblem, match=words):
            check_fit(config(tiny_model, model=model), base)

    own = Qwen2Config(num_hidden_layers=2).to_dict()
    refused(own, r"rope_free_layers \[2\]: the model has 2 layers, 0 to 1", rope_free_layers=[2])
    refused(SmolLM3Config().to_dict(), "chooses layers without positions by itself", rope_free_layers=[0])
    refused({"model_type": "x", "no_rope_layers": [1, 0]}, "by itself", rope_free_layers=[0])
    stage2 = config(tiny_model, "stage2", model={"adapter": "none"})
    with pytest.raises(InputProblem, match=r"stage2 needs model\.rope_free_layers"):
        check_fit(stage2, LlamaConfig().to_dict())
    check_fit(stage2, LlamaConfig().to_dict() | {"rope_free_layers": [3]})
    method = {"reward_functions": ["length"]}
    for engine in ({"engine": "verl", "method": method}, {"method": method | {"use_vllm": True}}):
        with pytest.raises(InputProblem, match=r"vLLM would give positions to layers \[0\]"):
            check_fit(config(tiny_model, "grpo", **engine), own | {"rope_free_layers": [0]})
        with pytest.raises(ValueError, match="vLLM and verl would give positions"):
            config(tiny_model, "grpo", model={"rope_free_layers": [0]}, **engine)
