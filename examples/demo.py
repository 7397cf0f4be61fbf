"""``make demo``: a real language model learns something, here, in minutes.

Submits the recipe `sft` with the profile `cpu` to the local runner, follows its log, and ends with the status
table, the loss curve and one question answered before and after training. Only what a user would type.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
CLUSTERCTL = Path(sys.executable).with_name("clusterctl")

# 135 million parameters on two cores: some minutes are a few hundred short rows.
SETTINGS = [
    "optim.num_train_epochs=1",
    "data.max_train_samples=240",
    "data.max_eval_samples=60",
    "data.max_length=256",
    "optim.learning_rate=1e-3",
    "optim.per_device_train_batch_size=4",
    "eval.samples=3",
    "output.logging_steps=5",
]


def clusterctl(*words: str, show: bool = True) -> str:
    """Run one command as typed, and return what it printed when it is not shown."""
    if show:
        print(f"\n$ clusterctl {' '.join(words)}\n", flush=True)
    done = subprocess.run([CLUSTERCTL, *words], cwd=ROOT, stdout=None if show else subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout or ""


def get_model(path: Path) -> None:
    """The small model, downloaded once."""
    if not (path / "config.json").is_file():
        print(f"fetching SmolLM2-135M-Instruct into {path} ...", flush=True)
        quiet = {**os.environ, "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        if code := subprocess.run([sys.executable, HERE / "get_smollm2.py", path], env=quiet).returncode:
            sys.exit(code)  # it has said why


def show_learning(run_dir: Path) -> None:
    """What the run directory holds about learning, as a person would look it up."""
    metrics = json.loads((run_dir / "training_metrics.json").read_text(encoding="utf-8"))
    before, after = metrics["eval_before"], metrics["eval_after"]
    print("held-out questions        before      after")
    print(f"answered exactly     {before['eval_answer_accuracy']:>11.1%} {after['eval_answer_accuracy']:>10.1%}")
    print(f"perplexity           {before['eval_perplexity']:>11.2f} {after['eval_perplexity']:>10.2f}")
    print("(always giving the commonest answer to each kind of question would score 20.6 %)")
    sample = json.loads((run_dir / "samples.json").read_text(encoding="utf-8"))["samples"][0]
    print(f"\nquestion  {sample['question']}")
    print(f"expected  {sample['expected']}\nbefore    {sample['before']}\nafter     {sample['after']}")
    print(f"\nloss curve: {run_dir / 'training_curves.png'}")
    print(f"the adapter: {run_dir / 'final_model'}")


def main() -> None:
    model = Path(sys.argv[1]).absolute()
    get_model(model)
    began = time.monotonic()
    sets = [word for item in [f"model.model_name_or_path={model}", *SETTINGS] for word in ("--set", item)]
    clusterctl("submit", "sft", "--profile", "cpu", "--scheduler", "local", "--name", "demo", *sets, "--follow")
    clusterctl("status", "last")
    answer = json.loads(clusterctl("status", "last", "--json", show=False))
    run_dir = Path(answer["data"]["runs"][0]["run_dir"])
    print()
    show_learning(run_dir)
    print(f"\nThe demo took {time.monotonic() - began:.0f} s, downloads not counted.")


if __name__ == "__main__":
    main()
