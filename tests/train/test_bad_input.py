"""What the trainer refuses: one clear line, a hint, exit code 2, nothing trained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tiny import write_csv, write_jsonl, write_run
from tests.train.conftest import progress, train

Refused = Callable[[Path], list[str]]


def test_every_mistake_of_the_configuration_at_once(folder: Path, data: Path, tiny_model: Path, bad: Refused) -> None:
    run = write_run(folder / "run", tiny_model, data, optim__learning_rat=1, precision__dtype="int8")
    lines = bad(run)
    assert lines[:2] == [
        "error: run.yaml: optim.learning_rat: unknown key, did you mean learning_rate?",
        "error: run.yaml: precision.dtype: Input should be 'fp32', 'bf16' or 'fp16', not 'int8'",
    ]
    assert len(lines) == 3
    assert progress(run.parent)["phase"] == "failed"
    run.write_text("a: [1", encoding="utf-8")
    assert bad(run)[0].startswith("error: run.yaml: not valid YAML: ")
    run.write_text("- 1", encoding="utf-8")
    assert len(bad(run)) == 2
    assert bad(folder / "none" / "run.yaml")[0].endswith("run.yaml: no such file")


def test_data_that_cannot_be_used(folder: Path, data: Path, tiny_model: Path, bad: Refused) -> None:
    assert "none.csv: no such file" in bad(write_run(folder / "missing", tiny_model, folder / "none.csv"))[0]
    empty = write_csv(folder / "empty.csv", [])
    assert "holds no rows" in bad(write_run(folder / "empty", tiny_model, empty))[0]
    holes = write_jsonl(folder / "holes.jsonl", [{"prompt": "a", "response": "b"}, {"prompt": "a", "response": ""}])
    lines = bad(write_run(folder / "holes", tiny_model, holes))
    assert lines[0].endswith("holes.jsonl: 1 of 2 rows cannot be used")
    assert lines[1] == "  row 2 (line 2): response is empty"
    assert progress(folder / "holes")["error"] == lines[0].removeprefix("error: ")
    wrong = write_csv(folder / "wrong.csv", [("a", "b")], ("question", "answer"))
    assert "has the columns question, answer" in bad(write_run(folder / "wrong", tiny_model, wrong))[0]


def test_model_that_cannot_be_used(folder: Path, data: Path, tiny_model: Path, bad: Refused) -> None:
    run = write_run(folder / "path", folder / "none", data)
    assert bad(run)[0] == f"error: model {folder / 'none'}: no such directory"
    (folder / "empty").mkdir()
    assert "has no config.json" in bad(write_run(folder / "no-config", folder / "empty", data))[0]
    lines = bad(write_run(folder / "hub", tiny_model, data, model__model_name_or_path="Qwen/Qwen2.5-8B"))
    assert lines[0].startswith("error: tokenizer of Qwen/Qwen2.5-8B cannot be loaded: ")
    assert "did you mean Qwen/Qwen2.5-" in lines[1]
    assert "HF_ENDPOINT" in lines[1]
    silent = folder / "silent"
    shutil.copytree(tiny_model, silent)
    (silent / "chat_template.jinja").unlink()
    lines = bad(write_run(folder / "template", silent, data))
    assert lines[0] == "error: the tokenizer has no chat template"
    assert "model.chat_template" in lines[1]


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """An adapter of the tiny model, from one step of training."""
    folder = tmp_path_factory.mktemp("adapter")
    data = write_csv(folder / "data.csv", [("Who?", "Three.")] * 4)
    ended = train(write_run(folder / "run", tiny_model, data, optim__max_steps=1))
    assert ended.code == 0, ended.err
    return folder / "run" / "final_model"


def test_adapter_that_cannot_be_continued(
    folder: Path, data: Path, tiny_model: Path, adapter: Path, bad: Refused
) -> None:
    run = write_run(folder / "missing", tiny_model, data, model__adapter_name_or_path=str(folder))
    assert "no adapter_config.json" in bad(run)[0]
    # Made for a wider model.
    wider = folder / "wider"
    shutil.copytree(adapter, wider)
    from safetensors.torch import load_file, save_file

    weights = load_file(wider / "adapter_model.safetensors")
    save_file({name: weight.repeat(2, 2) for name, weight in weights.items()}, wider / "adapter_model.safetensors")
    run = write_run(folder / "shape", tiny_model, data, model__adapter_name_or_path=str(wider))
    lines = bad(run)
    assert "does not fit" in lines[0] and "size mismatch" in lines[0]
    # Made for a model with other names: PEFT only warns, and would start anew.
    save_file({name.replace("layers", "blocks"): w for name, w in weights.items()}, wider / "adapter_model.safetensors")
    lines = bad(run)
    assert "did not arrive in the model" in lines[0]
    assert len(lines) == 2


def test_an_adapter_that_can_never_learn_is_stopped_at_the_first_step(
    folder: Path, data: Path, tiny_model: Path, adapter: Path
) -> None:
    from safetensors.torch import load_file, save_file

    dead = folder / "dead"
    shutil.copytree(adapter, dead)
    weights = load_file(dead / "adapter_model.safetensors")
    # The gradient of each of LoRA's two matrices is a product with the other one.
    save_file({name: 0 * weight for name, weight in weights.items()}, dead / "adapter_model.safetensors")
    run = write_run(folder / "run", tiny_model, data, model__adapter_name_or_path=str(dead))
    ended = train(run)
    assert ended.code == 1
    assert ended.err.splitlines()[0] == "error: step 1: the gradient is zero: this run would train nothing"
    assert not (run.parent / "checkpoints").exists() or not list((run.parent / "checkpoints").iterdir())


def test_a_diverging_run_is_stopped_with_its_last_good_checkpoint(folder: Path, data: Path, tiny_model: Path) -> None:
    run = write_run(
        folder / "run",
        tiny_model,
        data,
        model__adapter="none",
        optim__optim="sgd",
        optim__learning_rate=1e12,
        optim__max_grad_norm=1e9,
        optim__max_steps=50,
        output__save_steps=1,
    )
    ended = train(run)
    assert ended.code == 1
    assert "the run has diverged" in ended.err.splitlines()[0]
    assert "optim.learning_rate" in ended.err.splitlines()[1]
    assert len(ended.err.splitlines()) == 2
    state = progress(run.parent)
    assert state["phase"] == "failed" and "diverged" in state["error"]
    newest = max(int(path.name.split("-")[1]) for path in (run.parent / "checkpoints").iterdir())
    assert newest < state["step"] + 1
    for line in (run.parent / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        assert json.loads(line)["loss"] == json.loads(line)["loss"], "NaN in the metrics"


def test_a_model_without_trainable_weights(tiny_model: Path) -> None:
    from transformers import AutoModelForCausalLM

    from trainers.errors import RunProblem
    from trainers.runtime.callbacks import check_trainable

    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    check_trainable(model)
    with pytest.raises(RunProblem, match="no weight of this model is trainable"):
        check_trainable(model.requires_grad_(False))
