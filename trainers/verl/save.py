"""The trained model of a verl run in ``final_model``, as every other stage leaves it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from trainers.errors import RunProblem
from trainers.runtime.files import read_json, write_atomically
from trainers.verl.follow import folder_of, newest

TOKENIZER = ("tokenizer*", "special_tokens_map.json", "chat_template.jinja", "vocab*", "merges.txt")


def save_final(run_dir: Path, model: str) -> None:
    """Put the shards of the newest checkpoint together with verl's own merger. Raises RunProblem.

    Args:
        run_dir: the run.
        model: what the run started from; an adapter has to know it.
    """
    step = newest(run_dir)
    if step is None:
        raise RunProblem("verl finished without a checkpoint", hint="look into logs/job.out")
    shards, merged, final = folder_of(run_dir, step) / "actor", run_dir / "verl" / "merged", run_dir / "final_model"
    shutil.rmtree(merged, ignore_errors=True)
    command = [sys.executable, "-m", "verl.model_merger", "merge", "--backend", "fsdp"]
    done = subprocess.run([*command, "--local_dir", str(shards), "--target_dir", str(merged)], check=False)
    if done.returncode:
        raise RunProblem(
            f"the shards of {shards.parent.name} could not be put together (exit code {done.returncode})",
            hint="logs/job.err has the words of verl.model_merger; the checkpoint itself is whole",
        )
    adapter = merged / "lora_adapter"
    if adapter.is_dir():
        for path in (path for pattern in TOKENIZER for path in merged.glob(pattern)):
            shutil.move(path, adapter / path.name)
        config = adapter / "adapter_config.json"
        write_atomically(config, json.dumps(read_json(config) | {"base_model_name_or_path": model}, indent=2))
    shutil.rmtree(final, ignore_errors=True)
    shutil.move(adapter if adapter.is_dir() else merged, final)
    shutil.rmtree(merged, ignore_errors=True)
