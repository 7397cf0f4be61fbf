"""A model that does not fit the stage is known on the login node, where there is no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clusterctl.errors import UsageProblem
from clusterctl.runs import preflight
from tests.tiny import make_rows, write_csv
from trainers.config import parse


def check(folder: Path, base: dict[str, Any], stage: str = "sft", **model: Any) -> None:
    """The preflight of a run on a model with this config."""
    (folder / "config.json").write_text(json.dumps(base))
    data = write_csv(folder / "data.csv", make_rows(2))
    wanted = {"model_name_or_path": str(folder), **model}
    preflight.check(parse({"stage": stage, "model": wanted, "data": {"train_files": [str(data)]}}))


def test_the_shape_of_the_model_is_asked_before_the_queue(tmp_path: Path) -> None:
    causal = {"architectures": ["Qwen2ForCausalLM"], "num_hidden_layers": 4}
    check(tmp_path, causal)
    # What the file does not say is left to the trainer.
    check(tmp_path, {"model_type": "x"}, rope_free_layers=[9])
    check(tmp_path, {"model_type": "gpt2", "n_positions": 1024})
    for base, stage, model, words in (
        (causal, "mlm", {}, "stage mlm needs an encoder, and .* is a causal language model"),
        ({"architectures": ["BertForMaskedLM"]}, "sft", {}, "needs a causal language model, and .* is an encoder"),
        ({"architectures": ["BertLMHeadModel"]}, "sft", {}, "is an encoder"),
        ({"architectures": ["Qwen2ForSequenceClassification"]}, "dpo", {}, "is a classifier"),
        ({"architectures": ["T5Model"], "is_encoder_decoder": True}, "reward", {}, "an encoder and a decoder"),
        (causal, "sft", {"rope_free_layers": [4]}, r"\[4\]: the model has 4 layers, 0 to 3"),
        (causal | {"rope_free_layers": [1]}, "sft", {"rope_free_layers": [2]}, r"was trained with \[1\]"),
        (causal | {"no_rope_layers": [1, 0, 1, 1]}, "sft", {"rope_free_layers": [1]}, "by itself"),
        (causal, "stage2", {"adapter": "none"}, "needs model.rope_free_layers"),
        # data.max_length is 1024 where nobody says it.
        ({"model_type": "roberta", "max_position_embeddings": 514}, "mlm", {}, "1024: the model has 512 positions"),
        ({"model_type": "gpt2", "n_positions": 1000}, "sft", {}, "the model has 1000 positions"),
    ):
        with pytest.raises(UsageProblem, match=words):
            check(tmp_path, base, stage, **model)
    (tmp_path / "config.json").write_text("{")
    run = parse({"stage": "sft", "model": {"model_name_or_path": str(tmp_path)}, "data": {"train_files": ["x"]}})
    with pytest.raises(UsageProblem, match=r"config\.json: cannot be read"):
        preflight.check(run)


def test_the_schema_knows_what_excludes_each_other() -> None:
    def problem(stage: str, **sections: Any) -> str:
        values = {"stage": stage, "data": {"train_files": ["x"]}} | sections
        values["model"] = {"model_name_or_path": "x", **sections.get("model", {})}
        with pytest.raises(ValueError, match="Value error") as caught:
            parse(values)
        return str(caught.value)

    reward = {"reward_functions": ["length"]}
    free = {"rope_free_layers": [0]}
    assert "would give positions" in problem("grpo", model=free, engine="verl", method=reward)
    assert "would give positions" in problem("grpo", model=free, method=reward | {"use_vllm": True})
    assert "stage1 needs model.rope_free_layers" in problem("stage1", model={"adapter": "none"})
    assert "set model.adapter to none" in problem("stage1", model=free)
    assert "drop freeze and train_only" in problem("stage1", model=free | {"adapter": "none", "freeze": ["*"]})
    assert "it needs adapter lora" in problem("sft", model={"adapter": "none", "quantization": "4bit"})
    assert "it needs adapter none" in problem("sft", model={"train_only": ["*"]})
    assert "exclude each other" in problem("sft", model={"adapter": "none", "train_only": ["*"], "freeze": ["*"]})


def test_it_needs_no_torch() -> None:
    code = "import sys, trainers.model.fit; assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_adapter_that_does_not_fit_is_found_before_the_queue(tmp_path: Path) -> None:
    base, other, adapter = (tmp_path / name for name in ("base", "other", "adapter"))
    for place in (base, other, adapter):
        place.mkdir()
    small = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 64}
    (base / "config.json").write_text(json.dumps(small))

    def written(**values: str) -> None:
        (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base), **values}))

    written(task_type="CAUSAL_LM")
    check(base, small, adapter_name_or_path=str(adapter))
    with pytest.raises(UsageProblem, match=r"\(hidden_size 64\), not on .*other \(hidden_size 96\)"):
        check(other, small | {"hidden_size": 96}, adapter_name_or_path=str(adapter))
    with pytest.raises(UsageProblem, match=r"stage reward cannot go on with the adapter .* a model that writes"):
        check(base, small, "reward", adapter_name_or_path=str(adapter))
    written(task_type="SEQ_CLS")
    with pytest.raises(UsageProblem, match=r"stage sft cannot go on with the adapter .* a model that rates"):
        check(base, small, adapter_name_or_path=str(adapter))


def test_a_tokenizer_without_the_template_is_found_before_the_queue(tmp_path: Path) -> None:
    check(tmp_path, {})
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(UsageProblem, match="has no chat template"):
        check(tmp_path, {})
    (tmp_path / "tokenizer.json").write_text('{"added_tokens": [{"content": "<|im_start|>"}]}')
    with pytest.raises(UsageProblem, match=r"qwen2_chatml needs <\|im_end\|>, which the tokenizer does not have"):
        check(tmp_path, {}, chat_template="qwen2_chatml")
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    check(tmp_path, {})
