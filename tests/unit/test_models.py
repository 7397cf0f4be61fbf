"""Models by name: directory, hub's cache, shipped catalogue; what is broken, unknown, or nearly right."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterctl.errors import NotFound, UsageProblem
from clusterctl.models import catalogue, find
from clusterctl.models.families import FAMILIES

TINY: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 1000,
}

TOTALS = {
    "Qwen/Qwen2.5-0.5B-Instruct": 494_032_768,
    "Qwen/Qwen2.5-1.5B": 1_543_714_304,
    "Qwen/Qwen2.5-3B": 3_085_938_688,
    "Qwen/Qwen2.5-7B-Instruct": 7_615_616_512,
    "Qwen/Qwen2.5-14B": 14_770_033_664,
    "Qwen/Qwen2.5-32B": 32_763_876_352,
    "Qwen/Qwen2.5-72B": 72_706_203_648,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "Qwen/Qwen3-14B": 14_768_307_200,
    "Qwen/Qwen3-32B": 32_762_123_264,
    "Qwen/Qwen3-30B-A3B": 30_532_122_624,
    "Qwen/Qwen3-235B-A22B": 235_093_634_560,
    "Qwen/Qwen1.5-MoE-A2.7B": 14_315_784_192,
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
    "meta-llama/Llama-3.2-3B-Instruct": 3_212_749_824,
    "meta-llama/Llama-3.1-8B": 8_030_261_248,
    "meta-llama/Llama-3.1-70B": 70_553_706_496,
    "HuggingFaceTB/SmolLM2-135M": 134_515_008,
    "HuggingFaceTB/SmolLM2-360M": 361_821_120,
    "HuggingFaceTB/SmolLM2-1.7B": 1_711_376_384,
    "HuggingFaceTB/SmolLM3-3B": 3_075_098_624,
    "mistralai/Mistral-7B-v0.1": 7_241_732_096,
    "mistralai/Mistral-7B-v0.3": 7_248_023_552,
    "mistralai/Mixtral-8x7B-v0.1": 46_702_792_704,
    "google/gemma-2b": 2_506_172_416,
    "google/gemma-2-2b": 2_614_341_888,
    "google/gemma-2-9b": 9_241_705_984,
    "google/gemma-2-27b": 27_227_128_320,
    "google/gemma-3-1b-it": 999_885_952,
    "google/gemma-3-4b-it": 4_300_079_472,
    "microsoft/Phi-3-mini-4k-instruct": 3_821_079_552,
    "microsoft/phi-4": 14_659_507_200,
    "microsoft/Phi-4-mini-instruct": 3_836_021_760,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": 1_777_088_000,
    "01-ai/Yi-6B": 6_061_035_520,
    "01-ai/Yi-34B": 34_388_917_248,
    "allenai/OLMo-2-1124-7B": 7_298_617_344,
    "FacebookAI/roberta-base": 124_697_433,
    "answerdotai/ModernBERT-base": 149_655_232,
    "openai-community/gpt2": 124_439_808,
}
"""Parameters as the models' pages on the hub count them: a check on the shipped numbers that is not our own."""


@pytest.fixture(autouse=True)
def nothing_cached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "no cache"))
    monkeypatch.chdir(tmp_path)


def save(folder: Path, values: Any) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(values if isinstance(values, str) else json.dumps(values), encoding="utf-8")
    return str(folder)


def cache(home: Path, name: str, values: Any, commit: str = "c0ffee", ref: str = "main") -> None:
    """A model in the hub's cache below an HF_HOME."""
    model = home / "hub" / f"models--{name.replace('/', '--')}"
    save(model / "snapshots" / commit, values)
    (model / "refs").mkdir(exist_ok=True)
    (model / "refs" / ref).write_text(commit)


@pytest.mark.parametrize("name", TOTALS)
def test_shipped_numbers_add_up_to_what_the_pages_of_the_models_say(name: str) -> None:
    assert find.shape_of(name).total == TOTALS[name]


def test_the_catalogue_is_wide_enough() -> None:
    configs = [catalogue.find(name) or {} for name in catalogue.names()]
    assert len({json.dumps(config, sort_keys=True) for config in configs}) >= 25
    assert len({config["model_type"] for config in configs}) >= 6
    assert all(config["model_type"] in FAMILIES for config in configs)
    assert any(find.shape_of(name).num_experts for name in catalogue.names())
    assert len(catalogue.FILE.read_bytes()) < 40_000


def test_every_model_of_the_recipes_is_known() -> None:
    recipes = Path(find.__file__).parents[2] / "recipes"
    lines = [line.split() for path in recipes.glob("*.yaml") for line in path.read_text(encoding="utf-8").splitlines()]
    names = {line[1] for line in lines if line[:1] == ["model_name_or_path:"] and line[1].count("/") == 1}
    assert names
    for name in names:
        assert find.shape_of(name).exact


def test_a_directory_comes_first_then_the_cache_then_the_catalogue(tmp_path: Path) -> None:
    name, home = "Qwen/Qwen2.5-0.5B", tmp_path / "a'; echo home"
    assert find.shape_of(name, hub_home=str(home)).source == "the shipped catalogue"
    cache(home, name, TINY | {"num_hidden_layers": 3})
    found = find.shape_of(name, hub_home=str(home))
    assert found.num_hidden_layers == 3
    assert found.source.startswith("the hub's cache")
    save(tmp_path / name, TINY)
    assert find.shape_of(name, hub_home=str(home)).num_hidden_layers == 2
    assert find.shape_of(name).name == name


def test_the_cache_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache(tmp_path / "h", "me/own", TINY)
    with pytest.raises(NotFound):
        find.shape_of("me/own")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "h"))
    assert find.shape_of("me/own").vocab_size == 1000
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "elsewhere"))
    with pytest.raises(NotFound):
        find.shape_of("me/own")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "h" / "hub"))
    assert find.shape_of("me/own").vocab_size == 1000


def test_a_revision_is_looked_for_by_branch_and_by_commit(tmp_path: Path) -> None:
    cache(tmp_path, "me/own", TINY)
    cache(tmp_path, "me/own", TINY | {"num_hidden_layers": 5}, commit="beef", ref="v2")
    home = str(tmp_path)
    assert find.shape_of("me/own", hub_home=home).num_hidden_layers == 2
    assert find.shape_of("me/own", hub_home=home, revision="v2").num_hidden_layers == 5
    assert find.shape_of("me/own", hub_home=home, revision="beef").num_hidden_layers == 5
    with pytest.raises(NotFound):
        find.shape_of("me/own", hub_home=home, revision="v3")


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("Qwen/Qwen2.5-8B", "Qwen/Qwen2.5-7B"),
        ("Qwen/Qwen3-7B", "Qwen/Qwen3-8B"),
        ("qwen/qwen3-8b", "Qwen/Qwen3-8B"),
        ("Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-7B-Instruct"),
        ("meta-llama/Llama3.1-8B", "meta-llama/Llama-3.1-8B"),
        ("bert-base-uncase", "bert-base-uncased"),
    ],
)
def test_an_unknown_name_gets_the_nearest(wrong: str, right: str) -> None:
    with pytest.raises(NotFound) as caught:
        find.shape_of(wrong)
    assert wrong in caught.value.message
    assert right in caught.value.hint


@pytest.mark.parametrize("name", ["x", "a/b/c", "../..", "/no/such", "x" * 5000, "a\0b", "", "~nobody/m", "a\nb"])
def test_no_name_ends_in_a_traceback(name: str) -> None:
    with pytest.raises((NotFound, UsageProblem)) as caught:
        find.shape_of(name)
    assert caught.value.hint


BROKEN: list[tuple[Any, str]] = [
    ("{", "no JSON"),
    ("[" * 100_000, "no JSON"),
    ("[1]", "no model's config"),
    ({}, "hidden_size"),
    ({"model_type": "llama"}, "hidden_size"),
    (TINY | {"hidden_size": None}, "hidden_size"),
    (TINY | {"hidden_size": "64"}, "hidden_size"),
    (TINY | {"hidden_size": -64}, "hidden_size"),
    (TINY | {"num_hidden_layers": 0}, "num_hidden_layers"),
    (TINY | {"num_hidden_layers": 10**9}, "num_hidden_layers"),
    (TINY | {"vocab_size": True}, "vocab_size"),
    (TINY | {"vocab_size": 1e6}, "vocab_size"),
    (TINY | {"num_attention_heads": 0}, "num_attention_heads"),
    (TINY | {"intermediate_size": [96, 96]}, "intermediate_size"),
    (TINY | {"model_type": "qwen3_moe", "mlp_only_layers": 3}, "mlp_only_layers"),
    (TINY | {"model_type": "qwen3_moe", "decoder_sparse_step": 0}, "decoder_sparse_step"),
    ({"model_type": "gemma3", "vision_config": {"vision_use_head": False}}, "text_config"),
    ({"model_type": "never_heard_of"}, "hidden_size"),
    ({"model_type": "t5", "d_model": 64, "num_layers": 2, "is_encoder_decoder": True}, "encoder and a decoder"),
]


@pytest.mark.parametrize(("values", "said"), BROKEN, ids=range(len(BROKEN)))
def test_a_broken_config_is_a_problem_in_words(values: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match=said) as caught:
        find.shape_of(save(tmp_path / "a'; echo foo", values))
    assert caught.value.hint


def test_a_directory_without_a_config_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageProblem, match=r"no config\.json"):
        find.shape_of(str(tmp_path / "empty"))
    (tmp_path / "empty" / "adapter_config.json").write_text("{}")
    with pytest.raises(UsageProblem) as caught:
        find.shape_of(str(tmp_path / "empty"))
    assert "adapter_name_or_path" in caught.value.hint


junk = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10**12) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from([*FAMILIES, "unknown", None]),
    key=st.sampled_from(
        [
            *TINY,
            *("text_config", "vision_config", "head_dim", "num_key_value_heads", "num_experts", "num_experts_per_tok"),
            *(
                "moe_intermediate_size",
                "mlp_only_layers",
                "tie_word_embeddings",
                "quantization_config",
                "architectures",
            ),
        ]
    ),
    value=junk,
)
def test_any_entry_may_be_nonsense(kind: str | None, key: str, value: Any) -> None:
    try:
        shape = find.from_config(TINY | {"model_type": kind, key: value}, "m", "config.json")
    except UsageProblem:
        return
    assert shape.total > 0


def test_an_unknown_architecture_is_a_bound_that_says_so() -> None:
    shape = find.from_config(TINY | {"model_type": "brand_new"}, "m", "config.json")
    assert not shape.exact
    assert "brand_new" in shape.notes[0]
    assert "upper bound" in shape.notes[0]
    assert shape.total > find.from_config(TINY, "m", "config.json").total


def test_a_model_with_pictures_of_another_kind_says_what_is_not_counted() -> None:
    shape = find.from_config({"model_type": "qwen2_vl", "text_config": TINY}, "m", "config.json")
    assert not shape.exact
    assert any("not what sees" in note for note in shape.notes)


def test_quantised_files_are_said() -> None:
    shape = find.from_config(TINY | {"quantization_config": {"quant_method": "gptq"}}, "m", "config.json")
    assert shape.exact
    assert "gptq" in shape.notes[0]


def test_the_head_goes_by_the_stage() -> None:
    assert [find.head_of(stage) for stage in ("sft", "mlm", "reward", "grpo")] == [
        "causal",
        "masked",
        "classifier",
        "causal",
    ]
    whole = find.shape_of("Qwen/Qwen3-8B")
    rater = find.shape_of("Qwen/Qwen3-8B", head="classifier")
    assert whole.total - rater.total == 151_936 * 4096 - 4096
    assert (rater.output_layer, rater.tie_word_embeddings) == ("", False)
    with pytest.raises(UsageProblem, match="no head"):
        find.shape_of("Qwen/Qwen3-8B", head="masked")
    with pytest.raises(UsageProblem, match="no head"):
        find.shape_of("roberta-base", head="causal")


@pytest.mark.parametrize("content", [b"", b"\xff" * 20, b"\x02\0\0\0\0\0\0\0[]", b"\x0a\0\0\0\0\0\0\0" + b'{"a": {}} '])
def test_the_file_of_an_adapter_may_be_broken(content: bytes, tmp_path: Path) -> None:
    assert find.stored_adapter(str(tmp_path)) is None
    (tmp_path / "final_model").mkdir()
    (tmp_path / "final_model" / find.FILE).write_bytes(content)
    with pytest.raises(UsageProblem, match="cannot be read"):
        find.stored_adapter(str(tmp_path))


def test_nothing_heavy_is_loaded() -> None:
    code = (
        "import sys, clusterctl.models.flops; from clusterctl.models import find; "
        "find.shape_of('Qwen/Qwen3-30B-A3B'); print(*sys.modules)"
    )
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert not {"torch", "transformers", "pydantic", "yaml", "numpy", "difflib"} & loaded
