"""Engine verl, with a stand-in for verl itself: what it is given, what is told of it, stopping, resuming, saving.

Whether verl understands what it is given is asked of its own configuration in tests/unit/test_verl_overrides.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.tiny import make_rows, write_jsonl, write_run
from tests.train.conftest import ROOT, Ended, environment, metrics, progress, train
from trainers.guard import end

DRIVER = """
import importlib.util, json, os, sys, time
from pathlib import Path
asked = dict(word.split("=", 1) for word in sys.argv[1:])
text = lambda key: asked[key][1:-1].replace("\\\\'", "'")
spec = importlib.util.spec_from_file_location("reward", text("reward.custom_reward_function.path"))
reward = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reward)
import pyarrow.parquet as pq
row = pq.read_table(text("data.train_files")).to_pylist()[0]
said = reward.compute_score(row["data_source"], "<answer>" + row["reward_model"]["ground_truth"] + "</answer>",
                            row["reward_model"]["ground_truth"], extra_info=row["extra_info"])
folder = Path(text("trainer.default_local_dir"))
tracker = folder / "latest_checkpointed_iteration.txt"
done = int(tracker.read_text()) if tracker.exists() else 0
slow, broken = (Path(name).exists() for name in ("slow", "broken"))
variable = "+ray_kwargs.ray_init.runtime_env.env_vars.VERL_FILE_LOGGER_PATH"
with open(text(variable), "w", buffering=1) as log:
    for step in range(done + 1, int(asked["trainer.total_training_steps"]) + 1):
        values = {"actor/pg_loss": 0.1 / step, "critic/score/mean": said["score"], "perf/throughput": 10.0,
                  "perf/time_per_step": 0.01, "actor/lr": float("nan"), "odd": "text"}
        if step == 4:
            values |= {"val-core/clusterctl/reward/mean@1": 0.5, "val-aux/num_turns/min": 2}
        log.write(json.dumps({"step": step, "data": values}) + "\\n")
        if step % int(asked["trainer.save_freq"]) == 0:
            (folder / f"global_step_{step}" / "actor").mkdir(parents=True)
            tracker.write_text(str(step))
            if slow:
                time.sleep(60)
        if broken:
            sys.exit("CUDA out of memory")
"""

MERGER = """
import sys
from pathlib import Path
asked = dict(zip(sys.argv[2::2], sys.argv[3::2]))
target = Path(asked["--target_dir"])
(target / "lora_adapter").mkdir(parents=True)
(target / "tokenizer.json").write_text("{}")
(target / "model.safetensors").write_text("base")
(target / "lora_adapter" / "adapter_model.safetensors").write_text(asked["--local_dir"])
(target / "lora_adapter" / "adapter_config.json").write_text('{"r": 4}')
"""


@pytest.fixture
def packages(tmp_path: Path) -> str:
    """PYTHONPATH with stand-ins for verl, ray and vllm."""
    folder = tmp_path / "packages"
    for name, text in (("trainer/main_ppo.py", DRIVER), ("model_merger/__main__.py", MERGER)):
        path = folder / "verl" / name
        path.parent.mkdir(parents=True)
        path.write_text(text, encoding="utf-8")
    for name in ("ray", "vllm", "verl", "verl/trainer", "verl/model_merger"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "__init__.py").touch()
    return f"{ROOT}{os.pathsep}{folder}"


def verl_run(folder: Path, **overrides: Any) -> Path:
    model = folder / "model"
    model.mkdir(exist_ok=True)
    (model / "config.json").write_text('{"architectures": ["Qwen2ForCausalLM"]}', encoding="utf-8")
    rows = [{"prompt": q, "answer": a, "odd": [{"x": 1}, "y"][n % 2]} for n, (q, a) in enumerate(make_rows(24))]
    data = write_jsonl(folder / "prompts.jsonl", rows)
    values = {
        "stage": "grpo",
        "engine": "verl",
        "method": {"reward_functions": ["exact_match", "format"], "reward_weights": [2.0, 0.5], "num_generations": 4},
        "data__validation_split": 0.25,
        "parallel": {"launcher": "torchrun", "strategy": "ddp", "processes_per_node": 4},
        "optim__max_steps": 5,
        "output__save_steps": 2,
    }
    return write_run(folder / "run", model, data, **{**values, **overrides})


def test_verl_is_started_followed_stopped_resumed_and_saved(folder: Path, packages: str) -> None:
    run = verl_run(folder)
    run_dir = run.parent
    (run_dir / "slow").touch()
    env = environment(PYTHONPATH=packages)
    process = subprocess.Popen([sys.executable, "-m", "trainers", str(run)], env=env, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(run_dir.glob("checkpoints/*/COMPLETE")):
        assert process.poll() is None and time.monotonic() < deadline, process.stderr and process.stderr.read()
        time.sleep(0.1)
    (run_dir / "stop").touch()
    assert process.wait(30) == 85
    state = progress(run_dir)
    assert (state["phase"], state["step"], state["max_steps"]) == ("saved", 2, 5)
    assert end(run_dir, 85, "USR1") == (85, "saved at step 2, to be continued")

    (run_dir / "stop").unlink()
    (run_dir / "slow").unlink()
    ended = train(run, launcher=(sys.executable,), PYTHONPATH=packages, CLUSTERCTL_ATTEMPT="2")
    assert ended.code == 0, ended.err
    assert progress(run_dir)["phase"] == "finished" and progress(run_dir)["step"] == 5
    lines = [line for line in metrics(run_dir) if "loss" in line]
    assert [(line["attempt"], line["step"]) for line in lines] == [(1, 1), (1, 2), (2, 3), (2, 4), (2, 5)]
    # 2.0 for the exact answer, 0.5 for its form; 10 tokens/s on each of 4 GPUs.
    assert lines[0]["reward"] == 2.5 and lines[0]["tokens_per_second"] == 40
    assert set(lines[0]) == {
        "schema", "attempt", "step", "time", "loss", "reward", "seconds_per_step", "tokens_per_second",
    }  # fmt: skip
    assert [line["eval_reward"] for line in metrics(run_dir) if "eval_reward" in line] == [0.5]
    summary = json.loads((run_dir / "training_metrics.json").read_text(encoding="utf-8"))
    assert (summary["steps"], summary["rows"]) == (5, {"training": 18, "held_out": 6})

    final = run_dir / "final_model"
    assert sorted(path.name for path in final.iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors", "tokenizer.json",
    ]  # fmt: skip
    assert (final / "adapter_model.safetensors").read_text() == str(run_dir / "checkpoints" / "global_step_4" / "actor")
    known = json.loads((final / "adapter_config.json").read_text(encoding="utf-8"))
    assert known == {"r": 4, "base_model_name_or_path": str(folder / "model")}
    rows = pq.read_table(run_dir / "verl" / "train.parquet").to_pylist()
    assert len(rows) == 18 and {row["data_source"] for row in rows} == {"clusterctl"}
    assert rows[0]["prompt"][-1]["role"] == "user"
    assert {type(json.loads(row["extra_info"]["columns"])["odd"]) for row in rows} == {dict, str}
    assert "algorithm.adv_estimator='grpo'" in (run_dir / "verl_overrides.txt").read_text(encoding="utf-8").splitlines()


def test_verl_that_fails_or_is_not_there_is_said(folder: Path, packages: str) -> None:
    run = verl_run(folder)
    ended: Ended = train(run, launcher=(sys.executable,))
    assert ended.code == 2
    assert ended.err.startswith("error: engine verl: verl, ray, vllm is not installed here\nhint: verl wants an older")
    (run.parent / "broken").touch()
    ended = train(run, launcher=(sys.executable,), PYTHONPATH=packages)
    assert ended.code == 1
    assert "error: verl ended with exit code 1 after step 1\n" in ended.err
    assert "CUDA out of memory" in ended.err
    assert progress(run.parent)["phase"] == "failed"
