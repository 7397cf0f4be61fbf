"""Stages of RLHF start from a model that has learnt to answer: what counts as evidence, and what does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clusterctl.errors import UsageProblem
from clusterctl.runs import order
from tests.unit.test_bad_input import Cli, refused
from trainers.config import RunConfig, parse

CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


def config(model: str, adapter: str | None = None, stage: str = "dpo") -> RunConfig:
    named = {"model_name_or_path": model, "adapter_name_or_path": adapter}
    return parse({"stage": stage, "model": named, "data": {"train_files": "x"}})


def accepted(model: str | Path, adapter: str | Path | None = None) -> bool:
    try:
        order.check(config(str(model), str(adapter) if adapter else None), None)
    except UsageProblem:
        return False
    return True


@pytest.mark.parametrize(
    ("name", "fine"),
    [
        ("Qwen/Qwen2.5-1.5B-Instruct", True),
        ("Qwen/Qwen2.5-1.5B", False),
        ("Qwen/Qwen3-8B", True),
        ("Qwen/Qwen3-8B-Base", False),
        ("google/gemma-2-2b-it", True),
        ("google/gemma-2-2b", False),
        ("google/gemma-3-1b-pt", False),
        ("meta-llama/Llama-3.1-8B", False),
        ("meta-llama/Llama-3.1-8B-Instruct", True),
        ("meta-llama/Llama-2-7b-chat-hf", True),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", True),
        ("baichuan-inc/Baichuan2-7B-Chat", True),
        ("THUDM/chatglm3-6b", True),
        ("THUDM/chatglm3-6b-base", False),
        ("team/wolves-sft", True),
        ("team/literature-7b", False),
    ],
)
def test_names_on_the_hub(name: str, fine: bool) -> None:
    assert accepted(name) is fine


@pytest.mark.parametrize(
    ("template", "end", "fine"),
    [
        (CHATML, "<|im_end|>", True),
        (CHATML, {"content": "<|im_end|>"}, True),
        # Base models of Qwen have a template, too, and stop elsewhere.
        (CHATML, "<|endoftext|>", False),
        ("{{ messages[0].content + eos_token }}", "</s>", True),
        (None, "</s>", False),
    ],
)
@pytest.mark.parametrize("written", ["chat_template.jinja", "tokenizer_config.json"])
def test_directories(tmp_path: Path, template: str | None, end: object, fine: bool, written: str) -> None:
    folder = tmp_path / "some model"
    folder.mkdir()
    settings = {"eos_token": end}
    if written == "tokenizer_config.json":
        settings["chat_template"] = template
    elif template:
        (folder / written).write_text(template, encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    assert accepted(folder) is fine


def run(folder: Path, stage: str, model: str | Path, adapter: str | Path | None = None) -> Path:
    """A run directory; its final_model has what makes a base model of Qwen look like one."""
    final = folder / "final_model"
    final.mkdir(parents=True)
    (final / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}', encoding="utf-8")
    values = {
        "stage": stage,
        "model": {"model_name_or_path": str(model), "adapter_name_or_path": adapter and str(adapter)},
    }
    (folder / "run.yaml").write_text(json.dumps(values), encoding="utf-8")
    return final


def test_runs_of_ours(tmp_path: Path) -> None:
    sft = run(tmp_path / "sft", "sft", "a/base")
    cpt = run(tmp_path / "cpt", "cpt", "a/base")
    assert accepted("a/base", sft)
    assert accepted(sft)
    assert accepted(tmp_path / "sft" / "checkpoints" / "checkpoint-4") is False  # not there
    (tmp_path / "sft" / "checkpoints" / "checkpoint-4").mkdir(parents=True)
    assert accepted("a/base", tmp_path / "sft" / "checkpoints" / "checkpoint-4")
    assert accepted(run(tmp_path / "dpo", "dpo", "a/base"))
    assert not accepted("a/base", cpt)
    assert not accepted(cpt)
    # What such a run started from counts, and so does the base model of an adapter.
    assert accepted(run(tmp_path / "more", "cpt", sft))
    assert accepted("a/base", run(tmp_path / "adapter", "cpt", "a/base", sft))
    assert accepted("a/model-Instruct", cpt)


def test_stages_before_rlhf_start_from_anything() -> None:
    for stage in ("cpt", "sft", "reward"):
        order.check(config("a/base", stage=stage), None)


def test_the_command_line_says_why_and_can_be_forced(cli: Cli, folder: Path) -> None:
    (folder / "pairs.jsonl").write_text('{"prompt": "Who?", "chosen": "1", "rejected": "2"}\n', encoding="utf-8")
    text = "stage: {stage}\nmodel: {{model_name_or_path: a/base}}\ndata: {{train_files: {data}}}\n"
    (folder / "dpo.yaml").write_text(text.format(stage="dpo", data="pairs.jsonl"), encoding="utf-8")
    words = ("stage dpo starts from a/base", "no run of stage sft made it", "--force-start")
    refused(cli("submit", "dpo.yaml", "--dry-run"), 2, *words)
    assert cli("submit", "dpo.yaml", "--dry-run", "--force-start").code == 0
    # Behind an sft it is in order.
    (folder / "data.csv").write_text("prompt,response\na,b\n", encoding="utf-8")
    (folder / "sft.yaml").write_text(text.format(stage="sft", data="data.csv"), encoding="utf-8")
    (folder / "line.yaml").write_text("pipeline: [{recipe: ./sft.yaml}, {recipe: ./dpo.yaml}]\n", encoding="utf-8")
    assert cli("submit", "line.yaml", "--dry-run").code == 0
    (folder / "line.yaml").write_text(
        "pipeline: [{recipe: ./sft.yaml}, {recipe: ./dpo.yaml, starts_from: none}]\n", encoding="utf-8"
    )
    refused(cli("submit", "line.yaml", "--dry-run"), 2, *words)
