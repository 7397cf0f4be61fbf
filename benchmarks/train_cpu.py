"""Training speed on a CPU: stage sft against TRL's command line and LLaMA-Factory on the same model and data.

    python benchmarks/train_cpu.py                        a tiny model made on the spot
    python benchmarks/train_cpu.py --model models/SmolLM2-135M-Instruct

All run LoRA (r 8, all linear layers, dropout 0) in fp32 with the same threads and allocator settings, as
real processes, in turns, so that a busy machine slows all. Tokens without padding divided by the seconds of
the training loop. The peers run at their best settings: no gradient checkpointing, no bf16, no progress bar.
LLaMA-Factory needs older libraries: it gets an environment of its own in .cache/llamafactory, once.
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
    options.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS), help="whom to run beside ours")
    args = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        model = args.model.resolve() if args.model else _tiny(work / "model")
        rows = _rows(args.steps * args.batch, args.length, args.answer)
        runs = {"ours": _ours, **{name: PEERS[name] for name in args.peers}}
        rates: dict[str, list[float]] = {name: [] for name in runs}
        for turn in range(args.rounds):
            for name, run in runs.items():
                rates[name].append(run(work / f"{name}{turn}", model, rows, args))
            last = ", ".join(f"{name} {rate[-1]:.0f}" for name, rate in rates.items())
            print(f"round {turn + 1}: {last} tokens/s", flush=True)
    ours = statistics.median(rates["ours"])
    for name in args.peers:
        theirs = statistics.median(rates[name])
        print(f"median: ours {ours:.0f}, {name} {theirs:.0f} tokens/s; ratio {ours / theirs:.2f} (above 1: faster)")


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


def _llamafactory(folder: Path, model: Path, rows: list[tuple[str, str]], args: argparse.Namespace) -> float:
    import yaml

    folder.mkdir()
    info = {"rows": {"file_name": "rows.json", "columns": {"prompt": "prompt", "response": "response"}}}
    (folder / "dataset_info.json").write_text(json.dumps(info), encoding="utf-8")
    (folder / "rows.json").write_text(json.dumps([{"prompt": p, "response": r} for p, r in rows]), encoding="utf-8")
    config = {
        "stage": "sft",
        "do_train": True,
        "model_name_or_path": str(model),
        "finetuning_type": "lora",
        "lora_rank": 8,
        "lora_alpha": 16,
        "lora_dropout": 0.0,
        "lora_target": "all",
        "dataset": "rows",
        "dataset_dir": str(folder),
        # The same words around each row as the model's own template puts there.
        "template": "smollm2" if args.model else "chatml",
        "default_system": None if args.model else "",
        "cutoff_len": 4 * args.length,
        "per_device_train_batch_size": args.batch,
        "gradient_accumulation_steps": 1,
        "max_steps": args.steps,
        "learning_rate": 1e-4,
        "output_dir": str(folder / "out"),
        "save_strategy": "no",
        "logging_steps": 10,
        "report_to": "none",
        "disable_tqdm": True,
        "disable_gradient_checkpointing": True,
        "flash_attn": "sdpa",
        "use_cpu": True,
        "include_num_input_tokens_seen": "non_padding",
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    _run([str(_environment() / "bin/llamafactory-cli"), "train", "run.yaml"], folder, args.threads)
    state = json.loads((folder / "out/trainer_state.json").read_text(encoding="utf-8"))
    results = json.loads((folder / "out/train_results.json").read_text(encoding="utf-8"))
    return state["num_input_tokens_seen"] / results["train_runtime"]


def _environment() -> Path:
    """LLaMA-Factory's own virtual environment, made where there is none."""
    folder = ROOT / ".cache/llamafactory"
    if not (folder / "bin/llamafactory-cli").exists():
        print("installing LLaMA-Factory into .cache/llamafactory", flush=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [str(folder / "bin/pip"), "install", "--quiet"]
        subprocess.run([*pip, TORCH], check=True)
        subprocess.run([*pip, TORCH, "llamafactory==0.9.5"], check=True)
        # Sound and pictures come as CUDA builds, which a CPU build of torch cannot load; text needs neither.
        subprocess.run([folder / "bin/pip", "uninstall", "--quiet", "-y", "torchvision", "torchaudio"], check=True)
        [packages] = folder.glob("lib/python*/site-packages")
        (packages / "torchaudio.py").touch()
    return folder


TORCH = "torch==2.13.0"
PEERS = {"trl": _trl, "llamafactory": _llamafactory}

if __name__ == "__main__":
    main()
