"""Stage sft from the command line: it learns, and leaves what it promises."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.tiny import make_rows, write_csv, write_run
from tests.train.conftest import ROOT, environment, losses, metrics, progress, train, train_both, weights

CANARY = "canary-5f1d0c"


def test_lora_run_learns_and_leaves_the_whole_tree(folder: Path, data: Path, tiny_model: Path) -> None:
    run_dir = folder / "run"
    run = write_run(
        run_dir,
        tiny_model,
        data,
        data__validation_split=0.25,
        optim__max_steps=40,
        optim__learning_rate=2e-2,
        output__logging_steps=5,
        output__save_steps=15,
        eval__eval_steps=20,
        eval__samples=2,
        eval__max_new_tokens=12,
    )
    ended = train(run, CLUSTERCTL_ATTEMPT="3", HF_TOKEN=CANARY, SWANLAB_API_KEY=CANARY, WANDB_API_KEY=CANARY)
    assert ended.code == 0, ended.err
    assert ended.err == ""

    curve = losses(run_dir)
    assert list(curve) == [1, *range(5, 41, 5)]
    assert curve[40] < 0.9 * curve[1]
    line = next(line for line in metrics(run_dir) if line["step"] == 20 and "loss" in line)
    assert line["attempt"] == 3
    assert line["learning_rate"] > 0 and line["grad_norm"] > 0
    assert line["tokens_per_second"] > 0 and line["seconds_per_step"] > 0 and line["peak_memory"] > 2**20
    measured = {line["step"]: line for line in metrics(run_dir) if "eval_loss" in line}
    assert list(measured) == [0, 20, 40]
    assert measured[40]["eval_perplexity"] < measured[0]["eval_perplexity"]

    state = progress(run_dir)
    assert (state["phase"], state["attempt"], state["step"], state["max_steps"]) == ("finished", 3, 40, 40)
    assert state["error"] is None and state["device"] == "cpu"

    for name in ("adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "chat_template.jinja"):
        assert (run_dir / "final_model" / name).is_file()
    assert sorted(path.name for path in (run_dir / "checkpoints").iterdir()) == ["checkpoint-30", "checkpoint-40"]
    assert (run_dir / "checkpoints" / "checkpoint-40" / "COMPLETE").is_file()
    assert (run_dir / "training_curves.png").read_bytes().startswith(b"\x89PNG")
    assert list((run_dir / "tensorboard").iterdir())
    assert "loss" in (run_dir / "training.log").read_text(encoding="utf-8")
    assert "-m trainers run.yaml" in (run_dir / "train_command.txt").read_text(encoding="utf-8")
    assert "transformers: " in (run_dir / "environment_info.txt").read_text(encoding="utf-8")
    summary = json.loads((run_dir / "training_metrics.json").read_text(encoding="utf-8"))
    assert summary["rows"] == {"training": 36, "held_out": 12, "truncated": 0, "dropped": 0}
    assert summary["eval_after"]["eval_loss"] == measured[40]["eval_loss"]
    assert 0 < summary["trainable_parameters"] < summary["total_parameters"]

    rows = json.loads((run_dir / "samples.json").read_text(encoding="utf-8"))["samples"]
    assert len(rows) == 2
    assert all(isinstance(row["before"], str) and isinstance(row["after"], str) for row in rows)
    assert dict(make_rows())[rows[0]["question"]] == rows[0]["expected"]

    # The directory can be moved, and shown to others.
    for path in run_dir.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert str(run_dir).encode() not in content, path
            assert CANARY.encode() not in content, path


def test_full_fine_tuning_saves_a_model_that_answers(folder: Path, tiny_model: Path) -> None:
    data = write_csv(folder / "data.csv", make_rows(8))
    held_out = write_csv(folder / "eval.csv", make_rows(8))
    run_dir = folder / "run"
    run = write_run(
        run_dir,
        tiny_model,
        data,
        data__eval_files=str(held_out),
        model__adapter="none",
        precision__dtype="bf16",
        optim__max_steps=120,
        optim__learning_rate=5e-3,
        output__logging_steps=20,
        output__save_steps=1000,
        eval__samples=8,
    )
    ended = train(run)
    assert ended.code == 0, ended.err
    last = metrics(run_dir)[-1]
    assert last["eval_answer_accuracy"] == 1.0
    rows = json.loads((run_dir / "samples.json").read_text(encoding="utf-8"))["samples"]
    # Accuracy of the arg-max in one forward pass is what greedy generation says, word by word.
    assert [row["after"] for row in rows] == [row["expected"] for row in rows]
    assert all(row["before"] != row["expected"] for row in rows)

    code = """
import sys, torch
from transformers import AutoModelForCausalLM
before, after = (AutoModelForCausalLM.from_pretrained(path) for path in sys.argv[1:])
assert after.dtype == torch.float32, after.dtype
assert any(not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters()))
"""
    argv = [sys.executable, "-c", code, str(tiny_model), str(run_dir / "final_model")]
    done = subprocess.run(argv, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_adapter_goes_on_training(folder: Path, data: Path, tiny_model: Path) -> None:
    basic = folder / "basic"
    assert train(write_run(basic, tiny_model, data)).code == 0
    # A step too small to be seen: what comes out is what training started from.
    still = folder / "still"
    unmoved = write_run(
        still,
        tiny_model,
        data,
        model__adapter_name_or_path=str(basic),
        optim__learning_rate=1e-30,
        optim__max_steps=2,
    )
    more = folder / "more"
    moved = write_run(more, tiny_model, data, model__adapter_name_or_path=str(basic / "final_model"))
    for ended in train_both(unmoved, moved):
        assert ended.code == 0, ended.err
    assert weights(still) == weights(basic)
    assert losses(still)[1] < 0.95 * losses(basic)[1]
    # And it does learn.
    assert weights(more) != weights(basic)
    assert losses(more)[8] < losses(basic)[8]


def test_a_plain_python_process_is_quick_to_refuse_a_world_of_two(folder: Path, data: Path, tiny_model: Path) -> None:
    parallel = {"launcher": "torchrun", "strategy": "ddp", "processes_per_node": 2}
    ended = train(write_run(folder / "run", tiny_model, data, parallel=parallel))
    assert ended.code == 2
    assert "1 processes work together, run.yaml plans 2" in ended.err


def test_fp16_is_refused_without_a_gpu(folder: Path, data: Path, tiny_model: Path) -> None:
    run = write_run(folder / "run", tiny_model, data, precision__dtype="fp16", parallel__device="cpu")
    ended = train(run)
    assert ended.code == 1
    assert ended.err.startswith("error: fp16 training needs a GPU\nhint: ")
    assert progress(run.parent)["phase"] == "failed"


def test_a_run_that_wants_a_gpu_does_not_crawl_on_a_cpu(folder: Path, data: Path, tiny_model: Path) -> None:
    ended = train(write_run(folder / "run", tiny_model, data, parallel__device="cuda"), CUDA_VISIBLE_DEVICES="")
    assert ended.code == 1
    assert ended.err.startswith("error: this run needs a GPU and PyTorch sees none\nhint: ")


def test_the_guard_and_the_checkpoints_need_no_torch() -> None:
    code = """
import sys
import trainers.guard, trainers.runtime.checkpoints
heavy = {"torch", "transformers", "pydantic", "yaml", "numpy"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ, check=True)
