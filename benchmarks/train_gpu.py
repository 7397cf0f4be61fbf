"""Training speed and memory on one GPU: our stages at their settings for speed against TRL's defaults.

    python benchmarks/train_gpu.py                       all four cases, about 10 minutes on an H100
    python benchmarks/train_gpu.py --case 1.5b-full --steps 20

Random weights in the shapes of Qwen2.5-1.5B and of an 8B Llama, packed rows of 2048 tokens, bf16. Ours and
TRL's side run in turns as real processes on the same data. Prints tokens/s, MFU and peak memory of both, and
the ratio. MFU counts 6 N FLOPs a token for full training and 4 N for LoRA, see trainers/runtime/compute.py.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.tiny import make_tiny_model  # noqa: E402

LENGTH = 2048
VOCABULARY = 512
"""Words in the data; the models have the vocabulary of their shape."""

SHAPES: dict[str, dict[str, Any]] = {
    "1.5b": {
        "model_type": "qwen2",
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
        "max_position_embeddings": 32768,
    },
    "8b": {
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "tie_word_embeddings": False,
        "max_position_embeddings": 8192,
    },
}
CASES = {"1.5b-full": 4, "1.5b-lora": 8, "8b-lora": 4, "8b-full": 1}
"""Rows of 2048 tokens in a batch. 8b-full needs 8-bit Adam and still more than 80 GB without it."""


def main() -> None:
    """Run the cases and print a table."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--case", choices=CASES, nargs="*", default=["1.5b-full", "1.5b-lora", "8b-lora"])
    options.add_argument("--steps", type=int, default=20)
    options.add_argument("--rounds", type=int, default=1)
    options.add_argument("--attention", default="sdpa", choices=["sdpa", "flash_attention_2"])
    options.add_argument("--ours-only", action="store_true")
    args = options.parse_args()
    print(f"{'case':12} {'side':5} {'tokens/s':>9} {'MFU %':>6} {'GiB':>6}")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for case in args.case:
            shape, _, adapter = case.partition("-")
            model = _model(work / shape, shape)
            rows = _rows(work / f"{case}.jsonl", CASES[case] * args.steps)
            rates: dict[str, list[float]] = {}
            for turn in range(args.rounds):
                for side, run in (("ours", _ours), ("trl", _trl)):
                    if side == "trl" and args.ours_only:
                        continue
                    result = run(work / f"{case}-{side}{turn}", model, rows, adapter, CASES[case], args)
                    rates.setdefault(side, []).append(result["tokens_per_second"])
                    mfu = result.get("mfu")
                    print(
                        f"{case:12} {side:5} {result['tokens_per_second']:9.0f} "
                        f"{100 * mfu if mfu else float('nan'):6.1f} {result['peak_memory'] / 2**30:6.1f}",
                        flush=True,
                    )
            if "trl" in rates:
                print(f"{case:12} ratio {statistics.median(rates['ours']) / statistics.median(rates['trl']):.2f}")


def _model(path: Path, shape: str) -> Path:
    """Random weights in bf16, made on the GPU, and a tokenizer."""
    if path.exists():
        return path
    code = f"""
import torch
from transformers import AutoConfig, AutoModelForCausalLM
config = AutoConfig.for_model(**{SHAPES[shape]!r}, eos_token_id=2, pad_token_id=0)
torch.manual_seed(0)
with torch.device("cuda"):
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
model.save_pretrained({str(path)!r})
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    add_tokenizer(path)
    return path


def add_tokenizer(model: Path) -> None:
    """Put the tests' tokenizer beside a model: it knows turns, and the class of the model can load it."""
    for file in make_tiny_model(model.with_name("tokenizer")).iterdir():
        if file.name.startswith(("tokenizer", "chat_template", "vocab", "merges", "special")):
            shutil.copy(file, model)


def _rows(path: Path, blocks: int) -> Path:
    """Documents of 200 to 1200 words, each at least a token, enough for so many blocks."""
    dice = random.Random(0)
    left = blocks * LENGTH + LENGTH
    with path.open("w", encoding="utf-8") as file:
        while left > 0:
            count = dice.randint(200, 1200)
            file.write(json.dumps({"text": " ".join(f"w{dice.randrange(VOCABULARY)}" for _ in range(count))}) + "\n")
            left -= count + 1
    return path


def _run(argv: list[str], cwd: Path) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
        "PYTORCH_ALLOC_CONF": "expandable_segments:True",
    }
    done = subprocess.run(argv, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(argv)} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")


def _ours(
    folder: Path, model: Path, rows: Path, adapter: str, batch: int, args: argparse.Namespace
) -> dict[str, float]:
    import yaml

    folder.mkdir()
    config = {
        "stage": "cpt",
        "model": {
            "model_name_or_path": str(model),
            "adapter": "lora" if adapter == "lora" else "none",
            "attn_implementation": args.attention,
            "gradient_checkpointing": model.name == "8b",
        },
        "data": {"train_files": [str(rows)], "max_length": LENGTH},
        "optim": {
            "max_steps": args.steps,
            "per_device_train_batch_size": batch,
            "gradient_accumulation_steps": 1,
            "learning_rate": 1e-5,
        },
        "precision": {"dtype": "bf16"},
        "parallel": {"device": "cuda"},
        "output": {"save_steps": 10**6, "logging_steps": 5},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    _run([sys.executable, "-m", "trainers", str(folder / "run.yaml")], folder)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    # The first line is that of step 1, which also warms up.
    steady = [line for line in lines if "tokens_per_second" in line][1:]
    found = {name: statistics.mean(line[name] for line in steady) for name in ("tokens_per_second", "peak_memory")}
    return found | ({"mfu": statistics.mean(line["mfu"] for line in steady)} if "mfu" in steady[0] else {})


TRL = """
import json, sys, time, torch
from datasets import Dataset
from peft import LoraConfig
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer
model, rows, out, adapter, batch, steps, length, attention = sys.argv[1:]
class Clock(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        torch.cuda.synchronize()
        marks.append(time.monotonic())
marks = []
# TRL's defaults, but for what makes the task the same: length, packing, batch, number of steps.
config = SFTConfig(output_dir=out, max_length=int(length), packing=True, per_device_train_batch_size=int(batch),
    max_steps=int(steps), save_strategy="no", report_to="none", disable_tqdm=True, learning_rate=1e-5,
    model_init_kwargs={"attn_implementation": attention, "dtype": "bfloat16"})
trainer = SFTTrainer(model=model, args=config, train_dataset=Dataset.from_json(rows), callbacks=[Clock()],
    peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear") if adapter == "lora" else None)
trainer.train()
rate = (len(marks) - 1) * int(batch) * int(length) / (marks[-1] - marks[0])
json.dump({"tokens_per_second": rate, "peak_memory": torch.cuda.max_memory_reserved()}, open(out + "/result.json", "w"))
"""


def _trl(folder: Path, model: Path, rows: Path, adapter: str, batch: int, args: argparse.Namespace) -> dict[str, float]:
    folder.mkdir()
    words = [model, rows, folder, adapter, batch, args.steps, LENGTH, args.attention]
    _run([sys.executable, "-c", TRL, *map(str, words)], folder)
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
