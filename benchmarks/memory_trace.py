"""The planner's memory model against traces of the training step: predicted, traced, and their ratio.

    python benchmarks/memory_trace.py            all settings, about 3 minutes on one core
    python benchmarks/memory_trace.py --save     and writes the table to results/

Traced is what PyTorch would allocate (benchmarks/step_trace.py), so that the prediction is taken without CUDA's
context and fragments. Nothing here is measured. The exit code is 1 when a prediction is more than 10 % off, or more
than 3 % too low.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from pathlib import Path
from typing import Any

import torch
import transformers

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.step_trace import trace  # noqa: E402
from clusterctl.models import catalogue  # noqa: E402
from clusterctl.models.adapter import trainable  # noqa: E402
from clusterctl.models.find import shape_of  # noqa: E402
from clusterctl.plan.memory import moments  # noqa: E402
from clusterctl.plan.states import Learning  # noqa: E402
from trainers.config import RunConfig, parse  # noqa: E402

SMALL, SEVEN, QWEN3, LLAMA = "Qwen/Qwen2.5-1.5B", "Qwen/Qwen2.5-7B", "Qwen/Qwen3-8B", "meta-llama/Llama-3.1-8B-Instruct"

SETTINGS: list[tuple[str, str, str, bool, int, int, dict[str, Any]]] = [
    ("cpt", SMALL, "none", False, 1, 1024, {}),
    ("cpt", SMALL, "none", False, 4, 1024, {}),
    ("cpt", SMALL, "none", True, 4, 2048, {}),
    ("sft", SMALL, "none", True, 16, 512, {}),
    ("sft", SMALL, "none", True, 1, 4096, {"optim.gradient_accumulation_steps": 1}),
    ("sft", SMALL, "none", False, 1, 2048, {"optim.gradient_accumulation_steps": 1}),
    ("sft", SMALL, "lora", False, 4, 1024, {}),
    ("sft", SMALL, "lora", True, 8, 2048, {}),
    ("sft", SMALL, "lora", False, 1, 2048, {"model.lora.lora_dropout": 0.05}),
    ("sft", SMALL, "lora", True, 4, 1024, {"precision.dtype": "fp16"}),
    ("sft", SMALL, "none", True, 4, 1024, {"optim.optim": "adamw_torch"}),
    ("sft", SMALL, "lora", False, 2, 512, {"precision.dtype": "fp32"}),
    ("sft", SMALL, "none", False, 1, 512, {"precision.dtype": "fp32"}),
    ("sft", SMALL, "none", False, 2, 1024, {"model.attn_implementation": "eager"}),
    ("sft", SEVEN, "none", True, 1, 2048, {}),
    ("sft", SEVEN, "none", False, 1, 512, {}),
    ("sft", SEVEN, "lora", False, 2, 1024, {}),
    ("sft", SEVEN, "lora", True, 4, 4096, {}),
    ("cpt", QWEN3, "none", True, 2, 2048, {}),
    ("cpt", QWEN3, "none", False, 1, 1024, {}),
    ("sft", QWEN3, "lora", True, 4, 2048, {}),
    ("sft", QWEN3, "lora", False, 1, 2048, {}),
    ("sft", QWEN3, "lora", False, 1, 1024, {"model.lora.target_modules": ["q_proj", "v_proj"]}),
    ("cpt", LLAMA, "none", True, 1, 4096, {}),
    ("sft", LLAMA, "lora", True, 1, 512, {}),
    ("sft", LLAMA, "lora", False, 2, 1024, {"model.lora.r": 64}),
    ("dpo", SMALL, "none", False, 1, 1024, {}),
    ("dpo", LLAMA, "none", True, 1, 1024, {}),
    ("dpo", LLAMA, "lora", True, 2, 1024, {}),
    ("dpo", SEVEN, "lora", False, 1, 1024, {}),
]
"""Stage, model, adapter, checkpointing, rows of a batch, tokens of a row, and what else differs from the defaults."""


def configure(
    stage: str, model: str, adapter: str, checkpointing: bool, rows: int, length: int, more: Any
) -> RunConfig:
    """The configuration of a setting."""
    values: dict[str, Any] = {
        "stage": stage,
        "model": {"model_name_or_path": model, "adapter": adapter, "gradient_checkpointing": checkpointing},
        "data": {"train_files": ["rows.jsonl"], "max_length": length},
        "optim": {"per_device_train_batch_size": rows, "gradient_accumulation_steps": 4},
        "precision": {"dtype": "bf16"},
    }
    for key, value in more.items():
        at, names = values, key.split(".")
        for name in names[:-1]:
            at = at.setdefault(name, {})
        at[names[-1]] = value
    return parse(values)


def predicted(config: RunConfig) -> int:
    """What the planner says that PyTorch allocates at most."""
    shape = shape_of(config.model.model_name_or_path)
    learning = Learning(trainable(shape, config.model, config.stage), adapter=config.model.adapter == "lora")
    return max(sum(term.size for term in terms) for terms in moments(config, shape, learning))


def main() -> int:
    """Trace all settings and print the table."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--save", action="store_true", help="write the table to benchmarks/results/")
    options.add_argument("--only", default="", help="settings whose line has this word")
    args = options.parse_args()
    lines, bad = [f"{'setting':74} {'predicted':>9} {'traced':>8} {'ratio':>6}  peak at"], 0
    print(lines[0])
    for setting in SETTINGS:
        stage, model, adapter, checkpointing, rows, length, more = setting
        words = f"{stage} {model.split('/')[-1]} {'LoRA' if adapter == 'lora' else 'full'}"
        words += f"{' checkpointed' if checkpointing else ''} {rows} x {length}"
        words += "".join(f" {key.split('.')[-1]}={value}" for key, value in more.items())
        if args.only not in words:
            continue
        config = configure(*setting)
        entries = catalogue.find(model)
        assert entries is not None
        found, guess = trace(config, entries), predicted(config)
        ratio = guess / found.peak
        bad += not 0.97 <= ratio <= 1.10
        lines.append(
            f"{words:74} {guess / 2**30:9.2f} {found.peak / 2**30:8.2f} {ratio:6.3f}  {found.at.removeprefix('aten.')}"
        )
        print(lines[-1], flush=True)
    if args.save:
        _save(lines, bad)
    return int(bad > 0)


def _save(lines: list[str], bad: int) -> None:
    day = datetime.date.today().isoformat()
    head = (
        f"# Memory of a training step: predicted against traced, {day}\n\n"
        f"`python benchmarks/memory_trace.py`; torch {torch.__version__}, transformers {transformers.__version__}. GiB "
        "that PyTorch has\nallocated at the peak of the second step on one GPU, without CUDA's context and fragments. "
        "Traced on fake tensors,\nnothing here is measured. "
        f"{len(lines) - 1} settings, {bad} outside of 0.97 to 1.10.\n\n```\n"
    )
    path = Path(__file__).with_name("results") / f"memory_trace-{day}.md"
    path.write_text(head + "\n".join(lines) + "\n```\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
