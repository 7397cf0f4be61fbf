"""The planner's memory model against real peaks on one GPU. Never run so far: it needs a GPU of 80 GB.

    python benchmarks/memory_gpu.py              all settings that fit, about 20 minutes on an H100
    python benchmarks/memory_gpu.py --only lora

Random weights in two shapes, full blocks and pairs of one length, four steps of ``python -m trainers`` each. Prints
what was predicted, what PyTorch reserved at most, and their ratio; the context of CUDA, which PyTorch does not see, is
taken off the prediction. The exit code is 1 when a prediction is more than 10 % off, or more than 3 % too low.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import yaml  # noqa: E402

from benchmarks.train_gpu import VOCABULARY, _model, _run  # noqa: E402
from clusterctl.models.find import shape_of  # noqa: E402
from clusterctl.plan.memory import CONTEXT, estimate  # noqa: E402
from trainers.config import parse  # noqa: E402

STEPS = 4

SETTINGS: list[tuple[str, str, str, bool, int, int, dict[str, Any]]] = [
    ("cpt", "1.5b", "none", True, 4, 1024, {}),
    ("cpt", "1.5b", "none", False, 4, 1024, {}),
    ("cpt", "1.5b", "none", True, 1, 4096, {}),
    ("cpt", "1.5b", "none", True, 4, 1024, {"optim": {"optim": "adamw_8bit"}}),
    ("cpt", "1.5b", "lora", False, 4, 1024, {}),
    ("cpt", "1.5b", "lora", True, 8, 2048, {}),
    ("cpt", "8b", "lora", True, 1, 512, {}),
    ("cpt", "8b", "lora", True, 4, 2048, {}),
    ("cpt", "8b", "lora", False, 2, 1024, {}),
    ("cpt", "8b", "lora", True, 2, 1024, {"model": {"quantization": "4bit"}}),
    ("cpt", "8b", "lora", True, 2, 1024, {"model": {"quantization": "8bit"}}),
    ("dpo", "1.5b", "none", True, 2, 1024, {}),
    ("dpo", "8b", "lora", True, 2, 1024, {}),
    ("kto", "8b", "lora", True, 4, 1024, {}),
]
"""Stage, shape, adapter, checkpointing, rows of a batch, tokens of a row, and what else differs."""


def main() -> int:
    """Run the settings and print a table."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--only", default="", help="settings whose line has this word")
    args = options.parse_args()
    print(f"{'setting':60} {'predicted':>9} {'measured':>9} {'ratio':>6}")
    bad = 0
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        for number, setting in enumerate(SETTINGS):
            stage, shape, adapter, checkpointing, rows, length, more = setting
            words = (
                f"{stage} {shape} {adapter}{' checkpointed' if checkpointing else ''} {rows} x {length} {more or ''}"
            )
            if args.only not in words:
                continue
            model = _model(work / shape, shape)
            values = _values(work / f"rows{number}.jsonl", model, setting)
            guess = estimate(parse(values), shape_of(str(model)), None).total - CONTEXT
            peak = _measure(work / f"run{number}", values)
            bad += not 0.97 <= guess / peak <= 1.10
            print(f"{words:60} {guess / 2**30:9.2f} {peak / 2**30:9.2f} {guess / peak:6.3f}", flush=True)
    return int(bad > 0)


def _values(path: Path, model: Path, setting: tuple[str, str, str, bool, int, int, dict[str, Any]]) -> dict[str, Any]:
    """The run.yaml of a setting, with rows that fill ``length`` tokens."""
    stage, _, adapter, checkpointing, rows, length, more = setting
    dice = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(2 * STEPS * rows):
            # A word is several tokens: answers are longer than a row may be, and cut to the very length.
            text = [
                " ".join(f"w{dice.randrange(VOCABULARY)}" for _ in range(words))
                for words in (length // 32, length, length)
            ]
            row: dict[str, Any] = {"text": " ".join(text)}
            if stage == "dpo":
                row = {"prompt": text[0], "chosen": text[1], "rejected": text[2]}
            if stage == "kto":
                row = {"prompt": text[0], "completion": text[1], "label": dice.random() < 0.5}
            file.write(json.dumps(row) + "\n")
    return {
        "stage": stage,
        "model": {
            "model_name_or_path": str(model),
            "adapter": adapter,
            "gradient_checkpointing": checkpointing,
            **more.get("model", {}),
        },
        "data": {"train_files": [str(path)], "max_length": length},
        "optim": {
            "max_steps": STEPS,
            "per_device_train_batch_size": rows,
            "gradient_accumulation_steps": 2,
            **more.get("optim", {}),
        },
        "precision": {"dtype": "bf16"},
        "parallel": {"device": "cuda"},
        "output": {"save_steps": 10**6, "logging_steps": 1},
    }


def _measure(folder: Path, values: dict[str, Any]) -> int:
    """Bytes that PyTorch reserved at most."""
    folder.mkdir()
    (folder / "run.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    _run([sys.executable, "-m", "trainers", str(folder / "run.yaml")], folder)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return max(int(line["peak_memory"]) for line in lines if "peak_memory" in line)


if __name__ == "__main__":
    sys.exit(main())
