"""A user's project: a folder with a recipe, data and a tiny model, and the command line."""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.slurm.box import until
from tests.tiny import make_rows, write_csv, write_jsonl

CLUSTERCTL = Path(sys.executable).with_name("clusterctl")

RECIPE = """\
stage: sft
profile: cpu
model:
  model_name_or_path: {model}
  lora: {{r: 4, lora_alpha: 8, lora_dropout: 0.1}}
data:
  train_files: data.csv
  max_length: 64
optim:
  learning_rate: 5e-3
  max_steps: 12
  per_device_train_batch_size: 2
  gradient_accumulation_steps: 2
output:
  logging_steps: 1
  save_steps: 1000
"""
PROFILE = """\
cpus_per_task: 1
mem: 500M
time: 0:20:00
signal_lead: 30
dtype: fp32
env: {OMP_NUM_THREADS: 1}
"""


FURTHER = """\
stage: {stage}
model:
  model_name_or_path: {model}
  lora: {{r: 4, lora_alpha: 8}}
data:
  train_files: {data}
  max_length: 64
optim:
  learning_rate: 5e-3
  max_steps: 12
  per_device_train_batch_size: 2
  gradient_accumulation_steps: 1
output:
  logging_steps: 1
"""
# A step too small to be seen: what comes out is what the stage started from.
PIPELINE = """\
profile: cpu
pipeline:
  - recipe: cpt.yaml
  - recipe: mine.yaml
    name: sft
    set: {optim.learning_rate: 1e-30, optim.max_steps: 2}
  - recipe: dpo.yaml
    set: {optim.learning_rate: 1e-30, optim.max_steps: 2}
"""


@dataclass(frozen=True)
class Answer:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Project:
    """The folder, and the environment that its user has."""

    folder: Path
    env: dict[str, str]

    def cli(self, *words: str, timeout: float = 120, **env: str) -> Answer:
        """Run ``clusterctl`` in the folder."""
        done = subprocess.run(
            [CLUSTERCTL, *words],
            cwd=self.folder,
            env={**self.env, **env},
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start ``clusterctl`` and do not wait."""
        return subprocess.Popen(
            [CLUSTERCTL, *words],
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def submit(self, *words: str, recipe: str = "mine.yaml") -> Run:
        """Submit and return the (last) run."""
        answer = self.cli("submit", recipe, *words, "--json")
        assert answer.code == 0, answer.out + answer.err
        last = answer.json["data"]["runs"][-1]
        return Run(self, last["run_id"], str(last["job_id"]), Path(last["run_dir"]))

    def submit_all(self, *words: str, recipe: str) -> list[Run]:
        """Submit a pipeline and return its runs in order."""
        answer = self.cli("submit", recipe, *words, "--json")
        assert answer.code == 0, answer.out + answer.err
        runs = answer.json["data"]["runs"]
        return [Run(self, run["run_id"], str(run["job_id"]), Path(run["run_dir"])) for run in runs]

    def state(self, run_id: str) -> dict[str, Any]:
        """One run's status as a program sees it, from a fresh query."""
        answer = self.cli("status", run_id, "--json")
        assert answer.code == 0, answer.out + answer.err
        [one] = answer.json["data"]["runs"]
        return dict(one)


@dataclass(frozen=True)
class Run:
    """A submitted run."""

    project: Project
    run_id: str
    job_id: str
    run_dir: Path

    def wait_for(self, *states: str, timeout: float = 120) -> dict[str, Any]:
        """Wait until clusterctl says one of these states; return the whole status."""
        last: dict[str, Any] = {}

        def reached() -> bool:
            nonlocal last
            last = self.project.state(self.run_id)
            assert last["state"] in states or last["state"] not in ("FAILED", "TIMEOUT"), last
            return last["state"] in states

        until(reached, f"{self.run_id} to be {' or '.join(states)}, last {last.get('state')}", timeout)
        return last

    def wait_for_step(self, step: int, timeout: float = 120) -> None:
        """Wait until the trainer has done this step."""

        def reached() -> bool:
            try:
                return int(json.loads((self.run_dir / "progress.json").read_text(encoding="utf-8"))["step"]) >= step
            except (OSError, ValueError, KeyError):
                return False

        until(reached, f"step {step} of {self.run_id}", timeout)

    @property
    def attempts(self) -> list[dict[str, Any]]:
        """The begin and end lines."""
        path = self.run_dir / "attempts.jsonl"
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    @property
    def weights(self) -> str:
        """A digest of the adapter, or of the whole model, that came out."""
        [file] = (self.run_dir / "final_model").glob("*.safetensors")
        return hashlib.sha256(file.read_bytes()).hexdigest()

    @property
    def first_loss(self) -> float:
        """The loss of its first step."""
        summary = json.loads((self.run_dir / "training_metrics.json").read_text(encoding="utf-8"))
        return float(summary["first_loss"])


def make_project(folder: Path, env: dict[str, str], model: Path, scheduler: str = "slurm") -> Project:
    """Write the project's files. ``env`` is where its user comes from; the home is an empty one."""
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(RECIPE.format(model=model), encoding="utf-8")
    (folder / "profiles").mkdir()
    (folder / "profiles/cpu.yaml").write_text(PROFILE, encoding="utf-8")
    (folder / "clusterctl.yaml").write_text(f"scheduler: {scheduler}\npartitions: {{cpu: cpu}}\n", encoding="utf-8")
    write_csv(folder / "data.csv", make_rows(20))
    home = folder / "home"
    home.mkdir()
    left_out = ("COLUMNS", "CLUSTERCTL_OUTPUT_ROOT", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME")
    kept = {name: value for name, value in env.items() if name not in left_out}
    return Project(folder, {**kept, "HOME": str(home), "LANG": "C.UTF-8"})


def add_pipeline(project: Project, model: Path) -> None:
    """Write ``line.yaml``: cpt, sft and dpo, of which only the first moves any weight."""
    rows = make_rows(20)
    write_jsonl(project.folder / "texts.jsonl", [{"text": " ".join(row)} for row in rows])
    pairs = [{"prompt": asked, "chosen": answer, "rejected": "Nobody knows."} for asked, answer in rows]
    write_jsonl(project.folder / "pairs.jsonl", pairs)
    for stage, data in (("cpt", "texts.jsonl"), ("dpo", "pairs.jsonl")):
        text = FURTHER.format(stage=stage, model=model, data=data)
        (project.folder / f"{stage}.yaml").write_text(text, encoding="utf-8")
    (project.folder / "line.yaml").write_text(PIPELINE, encoding="utf-8")


def check_each_started_where_the_one_before_ended(runs: list[Run]) -> None:
    """That cpt has learnt, and that sft and dpo began with its very weights."""
    cpt, sft, dpo = runs
    assert cpt.weights == sft.weights == dpo.weights
    progress = json.loads((cpt.run_dir / "training_metrics.json").read_text(encoding="utf-8"))
    assert progress["last_loss"] < progress["first_loss"] - 0.1
    # The reference of dpo is what it starts from, so its first loss is that of a coin.
    assert abs(dpo.first_loss - math.log(2)) < 1e-3
