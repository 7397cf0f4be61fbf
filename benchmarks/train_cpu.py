"""Training speed on a CPU: stage sft against plain TRL (its command line) on the same model, data and batch.

    python benchmarks/train_cpu.py                        a tiny model made on the spot
    python benchmarks/train_cpu.py --model models/SmolLM2-135M-Instruct

Both run LoRA (r 8, all linear layers, dropout 0) in fp32 with the same threads and allocator settings, as
real processes, in turns, so that a busy machine slows both. Tokens without padding divided by the seconds of
the training loop. TRL runs at its best settings: no gradient checkpointing, no bf16, no progress bar.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORDS = ("seer", "wolf", "witch", "hunter", "villager", "night", "vote", "speech", "village", "moon")


def main() -> None:
    """Run both sides in turns and print the ratio."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--model", type=Path, help="model directory; without it a tiny one is made")
    options.add_argument("--steps", type=int, default=20)
    options.add_argument("--batch", type=int, default=4)
    options.add_argument("--length", type=int, default=256, help="about so many tokens a row")
    options.add_argument("--answer", type=float, default=0.25, help="share of a row that is answer")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--threads", type=int, default=os.cpu_count())
    args = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        model = args.model.resolve() if args.model else _tiny(work / "model")
        rows = _rows(args.steps * args.batch, args.length, args.answer)
        rates: dict[str, list[float]] = {"ours": [], "trl": []}
        for turn in range(args.rounds):
            rates["ours"].append(_ours(work / f"ours{turn}", model, rows, args))
            rates["trl"].append(_trl(work / f"trl{turn}", model, rows, args))
            print(f"round {turn + 1}: ours {rates['ours'][-1]:.0f}, TRL {rates['trl'][-1]:.0f} tokens/s", flush=True)
    ours, theirs = statistics.median(rates["ours"]), statistics.median(rates["trl"])
    print(f"median: ours {ours:.0f}, TRL {theirs:.0f} tokens/s; ratio {ours / theirs:.2f} (above 1: ours is faster)")


def _rows(count: int, length: int, answer: float) -> list[tuple[str, str]]:
    dice = random.Random(0)

    def text(words: float) -> str:
        return " ".join(dice.choice(WORDS) for _ in range(round(words * dice.uniform(0.8, 1.0))))

    return [(text(length * (1 - answer)), text(length * answer)) for _ in range(count)]


def _tiny(path: Path) -> Path:
    sys.path.insert(0, str(ROOT))
    from tests.tiny import make_tiny_model

    return make_tiny_model(path)


def _run(argv: list[str], cwd: Path, threads: int) -> str:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": str(threads),
        "GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=8589934592",
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(argv, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(argv)} failed:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def _ours(folder: Path, model: Path, rows: list[tuple[str, str]], args: argparse.Namespace) -> float:
    import yaml

    folder.mkdir()
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps({"prompt": p, "response": r}) + "\n" for p, r in rows), encoding="utf-8")
    config = {
        "stage": "sft",
        "model": {"model_name_or_path": str(model), "lora": {"r": 8, "lora_alpha": 16}},
        "data": {"train_files": [str(data)], "max_length": 4 * args.length},
        "optim": {
            "max_steps": args.steps,
            "per_device_train_batch_size": args.batch,
            "gradient_accumulation_steps": 1,
            "learning_rate": 1e-4,
        },
        "output": {"save_steps": 10**6},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    _run([sys.executable, "-m", "trainers", str(folder / "run.yaml")], folder, args.threads)
    summary = json.loads((folder / "training_metrics.json").read_text(encoding="utf-8"))
    return summary["tokens"] / summary["train_seconds"]


def _trl(folder: Path, model: Path, rows: list[tuple[str, str]], args: argparse.Namespace) -> float:
    folder.mkdir()
    data = folder / "data"
    data.mkdir()
    turns = [
        {"prompt": [{"role": "user", "content": p}], "completion": [{"role": "assistant", "content": r}]}
        for p, r in rows
    ]
    (data / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in turns), encoding="utf-8")
    command = f"""trl sft --model_name_or_path {model} --dataset_name {data} --output_dir {folder / "out"}
        --use_peft --lora_r 8 --lora_alpha 16 --lora_dropout 0 --lora_target_modules all-linear
        --per_device_train_batch_size {args.batch} --gradient_accumulation_steps 1 --max_steps {args.steps}
        --learning_rate 1e-4 --max_length {4 * args.length} --use_cpu --bf16 false --dtype float32
        --gradient_checkpointing false --save_steps 1000000 --logging_steps 10 --report_to none
        --disable_tqdm true --attn_implementation sdpa""".split()
    output = _run([str(Path(sys.executable).with_name("trl")), *command[1:]], folder, args.threads)
    logs = [ast.literal_eval(line) for line in re.findall(r"^\{.*\}$", output, re.MULTILINE)]
    seconds = next(float(line["train_runtime"]) for line in logs if "train_runtime" in line)
    return max(float(line["num_tokens"]) for line in logs if "num_tokens" in line) / seconds


if __name__ == "__main__":
    main()
