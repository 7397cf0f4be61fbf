"""Every way to hold and to choose the weights that learn, by its effect: in this process, on the tiny model."""

from __future__ import annotations

import importlib.util
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM, Qwen2Model

from tests.tiny import make_tiny_encoder, write_run
from tests.train.conftest import losses, weights
from tests.train.here import config, train_here
from trainers.errors import InputProblem, RunProblem
from trainers.model.base import check_length
from trainers.model.device import choose_device
from trainers.model.fit import check_fit, read_config
from trainers.model.load import load_frozen, load_model, load_tokenizer, load_trained
from trainers.runtime.callbacks import check_trainable

LEARNS = {"optim__max_steps": 8, "optim__learning_rate": 2e-2, "output__save_steps": 1000}
FULL = {"model__adapter": "none", "optim__learning_rate": 3e-3}
KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "4bit": {"model__quantization": "4bit"},
    "8bit": {"model__quantization": "8bit"},
    "full": FULL,
}


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_and_the_weights_that_learn_are_fp32(
    folder: Path, data: Path, tiny_model: Path, kind: str, dtype: str
) -> None:
    run = folder / "run"
    train_here(write_run(run, tiny_model, data, **LEARNS | KINDS[kind], precision__dtype=dtype))
    curve = losses(run)
    assert curve[8] < 0.95 * curve[1]
    (file,) = (run / "final_model").glob("*.safetensors")
    saved = load_file(file)
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32}
    # Not a number of bf16 among them: nothing was rounded on the way.
    assert not any(torch.equal(tensor, tensor.bfloat16().float()) for name, tensor in saved.items() if "layers" in name)
    assert (run / "final_model/tokenizer.json").exists() and (run / "final_model/chat_template.jinja").exists()
    if kind == "full":
        again = AutoModelForCausalLM.from_pretrained(run / "final_model")
        assert all(torch.equal(weight, saved[name]) for name, weight in again.named_parameters())


def test_what_the_base_of_an_adapter_is_held_in(tiny_model: Path) -> None:
    def formats(**options: Any) -> set[str]:
        model = load_model(config(tiny_model, **options))
        for module in model.modules():
            # On a CPU with bf16 instructions an evaluation would repack these, and all gradients after it be wrong.
            assert not getattr(module, "support_avx512bf16_for_cpu", False)
        assert not [w for n, w in model.named_parameters() if w.requires_grad and "lora_" not in n]
        return {str(w.dtype).removeprefix("torch.") for n, w in model.named_parameters() if "lora_" not in n}

    assert formats() == formats(precision={"dtype": "fp16"}) == {"float32"}
    assert formats(precision={"dtype": "bf16"}) == {"bfloat16"}
    assert formats(model={"quantization": "4bit"}) == {"uint8", "float32"}
    assert formats(model={"quantization": "8bit"}, precision={"dtype": "bf16"}) == {"int8", "bfloat16"}
    full = load_model(config(tiny_model, model={"adapter": "none"}, precision={"dtype": "bf16"}))
    assert {weight.dtype for weight in full.parameters()} == {torch.float32}

    states = [
        load_model(config(tiny_model, model={"quantization": "4bit", "double_quant": double}))
        .base_model.model.model.layers[0]
        .mlp.up_proj.base_layer.weight.quant_state.nested
        for double in (True, False)
    ]
    assert states == [True, False]


def test_rslora_dora_and_whole_modules(tmp_path: Path, tiny_model: Path) -> None:
    lora = {"r": 16, "lora_alpha": 8, "use_rslora": True, "use_dora": True, "modules_to_save": ["norm"]}
    model = load_model(config(tiny_model, model={"lora": lora, "quantization": "4bit"}))
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    assert layer.scaling["default"] == 8 / 16**0.5
    assert layer.lora_magnitude_vector["default"].weight.requires_grad
    learning = [name for name, weight in model.named_parameters() if weight.requires_grad and "lora_" not in name]
    assert len(learning) == 5 and all(name.endswith("modules_to_save.default.weight") for name in learning)
    # The adapter's settings are made anew each time: PEFT writes what it found into them.
    assert len(load_model(config(tiny_model, model={"lora": lora})).peft_config["default"].target_modules) == 14

    with pytest.raises(InputProblem, match=r"the model has no module embed$"):
        load_model(config(tiny_model, model={"lora": {"modules_to_save": ["embed"]}}))
    with pytest.raises(InputProblem, match=r"LoRA: Target modules .*query"):
        load_model(config(tiny_model, model={"lora": {"target_modules": ["query"]}}))

    torch.manual_seed(0)
    tied = tmp_path / "tied"
    Qwen2ForCausalLM(
        Qwen2Config(vocab_size=99, hidden_size=32, intermediate_size=32, num_hidden_layers=1, tie_word_embeddings=True)
    ).save_pretrained(tied)
    model = load_model(config(tied, model={"lora": {"modules_to_save": ["embed_tokens"]}}))
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight


def test_an_adapter_goes_on_bit_for_bit_also_on_quantised_weights(folder: Path, data: Path, tiny_model: Path) -> None:
    first = folder / "first"
    train_here(write_run(first, tiny_model, data, optim__max_steps=3))
    for quantization in ("none", "4bit", "8bit"):
        options = {"model__quantization": quantization, "model__adapter_name_or_path": str(first)}
        # A step too small to be seen: what comes out is what training started from.
        options |= {"precision__dtype": "bf16", "optim__learning_rate": 1e-30, "optim__max_steps": 1}
        train_here(write_run(folder / quantization, tiny_model, data, **options))
        assert weights(folder / quantization) == weights(first)
    model = load_model(config(tiny_model, model={"adapter_name_or_path": str(first)}))
    assert sum(weight.requires_grad for weight in model.parameters()) == 28
    with pytest.raises(RunProblem, match="no weight of this model is trainable"):
        check_trainable(load_trained(str(first)))

    # An adapter of which one weight finds no place is not half of an adapter.
    file = first / "final_model/adapter_model.safetensors"
    torn = load_file(file)
    torn["base_model.model.model.layers.7.mlp.up_proj.lora_A.weight"] = torn.pop(min(torn))
    save_file(torn, file)
    with pytest.raises(InputProblem, match="2 of 28 weights did not arrive"):
        load_frozen(config(tiny_model, model={"adapter_name_or_path": str(first)}).model, "causal", torch.float32)


def test_an_adapter_that_would_train_nothing_stops_at_step_1(folder: Path, data: Path, tiny_model: Path) -> None:
    # B is zero at the start, so that A has no gradient where B does not learn.
    run = write_run(folder / "run", tiny_model, data, model__freeze=["*.lora_B.*"])
    with pytest.raises(RunProblem, match="step 1: the gradient is zero: this run would train nothing"):
        train_here(run)
    assert not (folder / "run/final_model").exists()


def test_what_is_frozen_stays_and_checkpointing_changes_nothing(
    folder: Path, data: Path, tiny_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = load_file(tiny_model / "model.safetensors")
    options = LEARNS | FULL | {"optim__max_steps": 3}

    def changed(name: str, **more: Any) -> set[str]:
        train_here(write_run(folder / name, tiny_model, data, **options, **more))
        after = load_file(folder / name / "final_model/model.safetensors")
        return {weight for weight in before if not torch.equal(before[weight], after[weight])}

    frozen = ["*.embed_tokens.*", "model.layers.0.*"]
    with caplog.at_level(logging.INFO, logger="trainers"):
        plain = changed("plain", model__freeze=frozen)
    assert plain == {n for n in before if "embed_tokens" not in n and "layers.0." not in n}
    assert "14 of 27 parameter tensors learn" in caplog.text
    assert changed("again", model__freeze=frozen, model__gradient_checkpointing=True) == plain
    assert weights(folder / "again") == weights(folder / "plain")
    only = load_model(config(tiny_model, model={"adapter": "none", "train_only": "lm_head*"}))
    assert [name for name, weight in only.named_parameters() if weight.requires_grad] == ["lm_head.weight"]

    # An adapter on layers behind a frozen embedding gets the same gradients with and without.
    for name, checkpointing in (("lora", False), ("checkpointed", True)):
        more = {"model__adapter": "lora", "model__gradient_checkpointing": checkpointing}
        train_here(write_run(folder / name, tiny_model, data, **options | more))
    assert weights(folder / "lora") == weights(folder / "checkpointed")

    for model, words in (
        ({"freeze": ["*.layer.0.*"]}, r"no parameter that learns is called \*\.layer\.0\.\*"),
        ({"adapter": "none", "train_only": ["lm_haed*"]}, r"model\.train_only: no parameter .* lm_haed\*"),
        ({"freeze": ["*"]}, "no parameter is left that learns"),
    ):
        with pytest.raises(InputProblem, match=words) as caught:
            load_model(config(tiny_model, model=model))
        assert caught.value.hint
    with pytest.raises(InputProblem) as caught:
        load_model(config(tiny_model, model={"adapter": "none", "freeze": ["lm_haed*"]}))
    assert "lm_head.weight" in caught.value.hint


def test_8bit_adam_trains_on_a_cpu(folder: Path, data: Path, tiny_model: Path) -> None:
    run = folder / "run"
    train_here(write_run(run, tiny_model, data, **LEARNS | FULL, optim__optim="adamw_8bit"))
    assert losses(run)[8] < 0.95 * losses(run)[1]
    saved = torch.load(run / "checkpoints/checkpoint-8/optimizer.pt", weights_only=False)["state"].values()
    states = [one["__bnb_optimizer_quant_state__"]["state1"] for one in saved]
    # Those of small weights and of the embedding stay as they are.
    assert {one.dtype for one in states} == {torch.uint8, torch.float32}
    assert sum(one.dtype == torch.uint8 for one in states) == 11


def test_a_compiled_model_learns_the_same(
    folder: Path, data: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._dynamo.utils import counters

    from trainers.runtime import arguments

    usual = arguments.shared_arguments

    def traced(*of: Any) -> dict[str, Any]:
        # The compiler itself takes a minute for this model; that the model goes there is what we see to.
        made = usual(*of)
        return made | {"torch_compile_backend": "eager"} if made["torch_compile"] else made

    monkeypatch.setattr(arguments, "shared_arguments", traced)
    for name, compiled in (("plain", False), ("compiled", True)):
        more = {"model__torch_compile": compiled, "optim__max_steps": 1}
        counters.clear()
        train_here(write_run(folder / name, tiny_model, data, **LEARNS | FULL | more))
        assert bool(counters["stats"]["unique_graphs"]) == compiled
    assert losses(folder / "compiled") == pytest.approx(losses(folder / "plain"))
    assert load_trained(str(folder / "compiled/final_model"))


def test_what_this_machine_cannot_do_is_said_in_one_line(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = {"device": "cpu"}
    for options, words in (
        ({"optim": {"optim": "paged_adamw_8bit"}}, r"optim\.optim paged_adamw_8bit needs a GPU"),
        ({"model": {"use_liger_kernel": True}}, r"model\.use_liger_kernel needs a GPU"),
        ({"model": {"attn_implementation": "flash_attention_2"}}, "flash_attention_2 needs a GPU"),
        ({"precision": {"dtype": "fp16"}}, "fp16 training needs a GPU"),
    ):
        with pytest.raises(RunProblem, match=words):
            choose_device(config(tiny_model, parallel=cpu, **options))
    monkeypatch.setattr("trainers.model.device.find_spec", lambda name: None)
    for options in ({"optim": {"optim": "adamw_8bit"}}, {"model": {"quantization": "4bit"}}):
        with pytest.raises(InputProblem, match="needs the package bitsandbytes") as caught:
            choose_device(config(tiny_model, parallel=cpu, **options))
        assert caught.value.hint.startswith("pip install ")
    assert importlib.util.find_spec("bitsandbytes")


def test_a_model_that_does_not_fit_is_known_by_its_config(tmp_path: Path, tiny_model: Path) -> None:
    encoder = make_tiny_encoder(tmp_path / "encoder")
    for stage, model, words in (
        ("sft", encoder, "stage sft needs a causal language model, and .* is an encoder"),
        ("mlm", tiny_model, "stage mlm needs an encoder, and .* is a causal language model"),
    ):
        run = config(model, stage)
        with pytest.raises(InputProblem, match=words):
            check_fit(run, read_config(run.model))
        with pytest.raises(InputProblem, match=words):
            load_model(run, "masked" if stage == "mlm" else "causal")
    with pytest.raises(InputProblem, match="an encoder and a decoder"):
        check_fit(config(tiny_model), {"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True})
    bert = load_model(config(encoder, "mlm"), "masked")
    assert bert.config.model_type == "bert"
    long = {"train_files": ["none.txt"], "max_length": 129}
    words = r"data\.max_length 129: the model has 128 positions"
    with pytest.raises(InputProblem, match=words):
        load_model(config(encoder, "mlm", data=long), "masked")
    with pytest.raises(InputProblem, match=words):
        check_length(bert, 129)

    score = load_model(config(tiny_model, "reward"), "classifier")
    assert score(input_ids=torch.tensor([[5, 6]])).logits.shape == (1, 1)
    learning = {name for name, weight in score.named_parameters() if weight.requires_grad and "lora_" not in name}
    assert learning == {"base_model.model.score.modules_to_save.default.weight"}

    # A body without a head would be given one at random, and so would a reward model that was none.
    with pytest.raises(InputProblem, match=r"has no score\.weight, which Qwen2ForSequenceClassification needs"):
        load_trained(str(tiny_model), "classifier")
    score.save_pretrained(tmp_path / "score")
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        again = load_trained(str(tmp_path / "score"), "classifier")(input_ids=ids).logits
        assert torch.equal(again, score.eval()(input_ids=ids).logits)
    headless = tmp_path / "headless"
    Qwen2Model(Qwen2Config.from_pretrained(tiny_model)).save_pretrained(headless)
    with pytest.raises(InputProblem, match=r"has no lm_head\.weight, which Qwen2ForCausalLM needs"):
        load_model(config(headless))


def test_a_tokenizer_with_more_tokens_than_the_model_has_rows(tmp_path: Path, tiny_model: Path) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tiny_model)
    known = len(tokenizer)
    assert load_tokenizer(config(tiny_model).model)
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(json.loads((tiny_model / "config.json").read_text())))
    with pytest.raises(InputProblem, match=f"has {known + 1} tokens and its model {known}"):
        load_tokenizer(config(tmp_path).model)
