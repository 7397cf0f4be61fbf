"""Stages grpo and rloo: the reward rises, the reference is the start of the stage, stopping and resuming are exact,
and what can never be learned from is said."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import make_rows, write_jsonl, write_run
from tests.train.conftest import Ended, environment, metrics, progress, train, train_both, weights

LOW = """
def low(prompts, completions, completion_ids, odd, **columns):
    # The column is what the file says: rows of other keys did not leak into it.
    assert all(value in ({"a": 1}, {"b": [2]}, None) for value in odd), odd
    return [sum(token < 260 for token in ids) / len(ids) for ids in completion_ids]

def same(completions, **columns):
    return [0.5] * len(completions)

def late(completions, answer, trainer_state, **columns):
    if trainer_state.global_step < 1:
        return [None for _ in completions]
    return [1 / (len(text) - len("Player 2 is a hunter.")) for text in answer]
"""


@pytest.fixture
def prompts(folder: Path) -> Path:
    """24 prompts with columns of unlike types, and beside them the functions that rate the answers."""
    (folder / "rewards.py").write_text(LOW, encoding="utf-8")
    odd: list[Any] = [{"a": 1}, {"b": [2]}]
    rows = [{"prompt": q, "answer": a, "odd": odd[n % 2]} for n, (q, a) in enumerate(make_rows(24))]
    return write_jsonl(folder / "prompts.jsonl", rows)


def rollouts(run_dir: Path, model: Path, prompts: Path, function: str, **overrides: Any) -> Path:
    values = {
        "stage": "grpo",
        "model__adapter": "none",
        "method": {"num_generations": 4, "max_completion_length": 12},
        "method__reward_functions": [f"{prompts.parent / 'rewards.py'}:{function}"],
        "optim__per_device_train_batch_size": 16,
        "optim__lr_scheduler_type": "constant",
        "output__save_steps": 1000,
    }
    return write_run(run_dir, model, prompts, **{**values, **overrides})


def train_all(*runs: Path) -> tuple[list[int], Ended]:
    """Several runs in one process, which takes the seconds of the libraries once."""
    code = "import json, sys; from trainers.__main__ import main; codes = [main([run]) for run in sys.argv[1:]]; "
    argv = [sys.executable, "-c", code + "print(); print(json.dumps(codes))", *map(str, runs)]
    done = subprocess.run(argv, env=environment(), capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), Ended(0, done.stdout, done.stderr)


def make_classifier(path: Path, tiny_model: Path) -> Path:
    """A reward model with random weights and a template of its own, which ends every message otherwise."""
    import torch
    from transformers import AutoConfig, AutoTokenizer, Qwen2ForSequenceClassification

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"
    tokenizer.save_pretrained(path)
    torch.manual_seed(1)
    config = AutoConfig.from_pretrained(tiny_model, num_labels=1)
    model = Qwen2ForSequenceClassification(config)
    # So that its scores differ by more than rounding.
    model.score.weight.data *= 20
    model.save_pretrained(path)
    return path


def make_adapter(path: Path, tiny_model: Path) -> Path:
    """An adapter that was trained before: with it the model says something else than without."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(2)
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    adapted = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "down_proj"]))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    adapted.save_pretrained(path)
    return path


def test_the_reward_rises_and_what_teaches_nothing_is_said(folder: Path, prompts: Path, tiny_model: Path) -> None:
    grpo, rloo, same, late = (folder / name for name in ("grpo", "rloo", "same", "late"))
    codes, ended = train_all(
        rollouts(
            grpo,
            tiny_model,
            prompts,
            "low",
            method__reward_weights=[2.0],
            data__validation_split=0.25,
            optim__learning_rate=1e-2,
            optim__max_steps=25,
            eval__samples=1,
            eval__max_new_tokens=4,
        ),
        rollouts(
            rloo,
            tiny_model,
            prompts,
            "low",
            stage="rloo",
            method__reward_functions=[],
            method__reward_model=str(make_classifier(folder / "classifier", tiny_model)),
            method__beta=0.02,
            optim__learning_rate=1e-2,
            optim__max_steps=25,
        ),
        rollouts(same, tiny_model, prompts, "same", optim__max_steps=20),
        rollouts(late, tiny_model, prompts, "late", optim__max_steps=20),
    )
    assert codes == [0, 0, 1, 1], ended.err

    lines = [line for line in metrics(grpo) if "loss" in line]
    assert lines[0]["reward"] == pytest.approx(2 * lines[0]["rewards/low/mean"])
    assert lines[0]["reward"] < 1.2 and lines[-1]["reward"] > 1.7
    assert lines[0]["completions/mean_length"] <= 12 and 0 <= lines[0]["completions/clipped_ratio"] <= 1
    assert lines[0]["samples_per_second"] > 0 and lines[0]["tokens_per_second"] > 100
    # There is no reference, so there is no KL to report.
    assert not any("kl" in name for line in lines for name in line)
    before, after = (line for line in metrics(grpo) if "eval_reward" in line)
    assert (before["step"], after["step"]) == (0, 25)
    assert after["eval_reward"] > before["eval_reward"] + 0.5
    assert after["eval_reward"] == pytest.approx(2 * after["eval_rewards/low"])
    assert 0 < after["eval_completion_length"] <= 12
    summary = json.loads((grpo / "training_metrics.json").read_text(encoding="utf-8"))
    assert summary["eval_after"]["eval_reward"] == after["eval_reward"]
    assert summary["rows"] == {"training": 18, "held_out": 6, "dropped": 0}
    (sample,) = json.loads((grpo / "samples.json").read_text(encoding="utf-8"))["samples"]
    assert dict(make_rows(24))[sample["question"]] == sample["expected"]

    lines = [line for line in metrics(rloo) if "loss" in line]
    scores = [line["rewards/reward_model/mean"] for line in lines]
    assert sum(scores[-5:]) / 5 > sum(scores[:5]) / 5 + 3 * lines[0]["rewards/reward_model/std"] / 4
    # The reference is a second model, in the same place as this one begins.
    assert lines[0]["kl_per_token"] == 0.0 and lines[-1]["kl_per_token"] > 0

    assert "step 1: all answers to each prompt got the same reward" in (same / "training.log").read_text("utf-8")
    assert "in the first 10 steps all answers to each prompt got the same reward" in progress(same)["error"]
    # A step that no function rated teaches nothing, and is no reason to end.
    assert "all answers to each prompt got the same reward or none" in (late / "training.log").read_text("utf-8")
    assert "reward" not in next(line for line in metrics(late) if "loss" in line)
    error = progress(late)["error"]
    assert error.startswith("reward function failed at step 2, answer to ") and "row " in error, error
    assert error.endswith(f"{prompts.parent / 'rewards.py'}:13: ZeroDivisionError: division by zero")
    assert "Traceback" not in ended.err


def test_stopped_between_two_steps_on_the_same_answers_and_resumed_is_exact(
    folder: Path, prompts: Path, tiny_model: Path
) -> None:
    """With an adapter that was trained before, whose start is the reference, and accumulated batches."""
    values = {
        "model__adapter": "lora",
        "model__adapter_name_or_path": str(make_adapter(folder / "adapter", tiny_model)),
        "method__beta": 0.5,
        "method__num_iterations": 2,
        "optim__learning_rate": 1e-2,
        "optim__max_steps": 8,
        "optim__per_device_train_batch_size": 8,
        "optim__gradient_accumulation_steps": 2,
        "output__save_steps": 3,
    }
    straight = rollouts(folder / "straight", tiny_model, prompts, "low", **values)
    broken = rollouts(folder / "broken", tiny_model, prompts, "low", **values)
    (broken.parent / "stop").touch()
    stopped = train(broken)
    assert stopped.code == 85, stopped.err
    assert (progress(broken.parent)["phase"], progress(broken.parent)["step"]) == ("saved", 1)
    (broken.parent / "stop").unlink()
    for ended in train_both(straight, broken):
        assert ended.code == 0, ended.err
    assert weights(straight.parent) == weights(broken.parent)
    first, *_, last = (line for line in metrics(straight.parent) if "loss" in line)
    # Were the base model the reference, the start would be far from it.
    assert first["kl_per_token"] == 0.0 and last["kl_per_token"] > 0


def test_bad_rewards_end_before_any_model_is_loaded(folder: Path, prompts: Path, tiny_model: Path) -> None:
    (folder / "rewards.py").write_text("def low(**columns):\n    raise KeyError('nothing')\n", encoding="utf-8")
    raising = rollouts(folder / "raising", tiny_model, prompts, "low")
    vllm = rollouts(folder / "vllm", tiny_model, prompts, "low", method__use_vllm=True)
    few = rollouts(
        folder / "few", tiny_model, prompts, "low", optim__gradient_accumulation_steps=8,
        method__reward_functions=["length"], data__max_train_samples=3,
    )  # fmt: skip
    codes, ended = train_all(raising, vllm, few)
    assert codes == [2, 2, 2]
    errors = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert errors[0].endswith(f"{folder / 'rewards.py'}:2: KeyError: 'nothing'")
    assert errors[1] == "error: method.use_vllm needs a GPU"
    assert errors[2] == "error: a step takes 32 prompts and there are 3"
    assert "Traceback" not in ended.err
    assert "loading" not in ended.out
