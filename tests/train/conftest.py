"""What the training tests share: real runs of ``python -m trainers`` in folders with an unfriendly name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import make_rows, write_csv
from tests.train import forked

ROOT = Path(__file__).resolve().parents[2]


def environment(**extra: str) -> dict[str, str]:
    """The environment of a batch job: one thread, no network, nothing of this shell's job."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("CLUSTERCTL_", "SLURM_"))}
    # Nothing listens on port 9: whatever tries the network fails at once.
    dead = "http://127.0.0.1:9"
    return {
        **clean,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "HTTP_PROXY": dead,
        "HTTPS_PROXY": dead,
        "http_proxy": dead,
        "https_proxy": dead,
        **extra,
    }


@dataclass(frozen=True)
class Ended:
    """A trainer process that ended."""

    code: int
    out: str
    err: str


def train(run: Path, *, launcher: tuple[str, ...] = (), **env: str) -> Ended:
    """Run ``run.yaml`` to its end; without a launcher in a process that has the libraries already."""
    if not launcher:
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder, "out"), Path(folder, "err")
            code = forked.run([str(run)], environment(**env), out, err, timeout=300)
            return Ended(code, *(path.read_text(encoding="utf-8") if path.exists() else "" for path in (out, err)))
    argv = [*launcher, "-m", "trainers", str(run)]
    done = subprocess.run(argv, env=environment(**env), capture_output=True, text=True, check=False, timeout=300)
    return Ended(done.returncode, done.stdout, done.stderr)


def train_both(one: Path, other: Path, **env: str) -> tuple[Ended, Ended]:
    """Run two ``run.yaml`` at the same time: half of a short run is one core importing libraries."""
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.submit(train, one, **env), pool.submit(train, other, **env)
        return first.result(), second.result()


def start(run: Path) -> subprocess.Popen[str]:
    """Start ``run.yaml`` and leave it running."""
    argv = [sys.executable, "-m", "trainers", str(run)]
    return subprocess.Popen(argv, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def wait_for_step(process: subprocess.Popen[str], run_dir: Path, step: int) -> None:
    """Wait until the newest attempt has logged this step."""
    deadline = time.monotonic() + 120
    while not any(line["step"] >= step for line in metrics(run_dir)):
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline, f"step {step} was not reached"
        time.sleep(0.02)


def torchrun(processes: int) -> tuple[str, ...]:
    """The launcher for some processes on this machine, on a free port."""
    program = str(Path(sys.executable).with_name("torchrun"))
    return (program, "--standalone", "--nnodes=1", f"--nproc_per_node={processes}")


def progress(run_dir: Path) -> dict[str, Any]:
    """What the run last said about itself."""
    return json.loads((run_dir / "progress.json").read_text(encoding="utf-8"))


def metrics(run_dir: Path) -> list[dict[str, Any]]:
    """All whole lines of metrics.jsonl."""
    path = run_dir / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def losses(run_dir: Path) -> dict[int, float]:
    """Training loss by step; later attempts count."""
    return {line["step"]: line["loss"] for line in metrics(run_dir) if "loss" in line}


def weights(run_dir: Path) -> bytes:
    """The bytes of the trained adapter or model."""
    (path,) = (run_dir / "final_model").glob("*.safetensors")
    return path.read_bytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with a name that breaks careless quoting."""
    path = tmp_path / "a'; echo foo"
    path.mkdir()
    return path


@pytest.fixture
def data(folder: Path) -> Path:
    """48 questions and answers."""
    return write_csv(folder / "data.csv", make_rows())


@pytest.fixture
def bad(folder: Path) -> Callable[[Path], list[str]]:
    """Run what must be refused with exit code 2, without a traceback, and return its lines on stderr."""

    def check(run: Path) -> list[str]:
        ended = train(run)
        assert ended.code == 2, ended.err
        assert "Traceback" not in ended.err
        lines = ended.err.splitlines()
        assert lines[0].startswith("error: ")
        assert lines[-1].startswith("hint: ")
        assert not (run.parent / "checkpoints").exists()
        assert not (run.parent / "final_model").exists()
        return lines

    return check
