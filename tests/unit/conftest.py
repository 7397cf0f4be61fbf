"""What the unit tests share: an own home, and the command line as a program."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.local_box import LocalBox
from tests.project import CLUSTERCTL, Answer

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """An environment in which nothing of this machine's user shows, and no Slurm is on PATH."""
    (tmp_path / "home").mkdir()
    (tmp_path / "bin").mkdir()
    programs = ("bash", "env", "stat", "date", "hostname", "dirname", "python3", "sleep", "cat", "kill", "grep", "tr")
    for program in programs:
        found = next((Path(p) / program for p in ("/usr/bin", "/bin") if (Path(p) / program).exists()), None)
        if found:
            (tmp_path / "bin" / program).symlink_to(found)
    return {
        "HOME": str(tmp_path / "home"),
        "PATH": str(tmp_path / "bin"),
        "CLUSTERCTL_LEASE_DIR": str(tmp_path / "leases"),
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with a name that breaks careless quoting."""
    path = tmp_path / "a'; echo foo"
    path.mkdir()
    return path


@pytest.fixture
def cli(home: dict[str, str], folder: Path) -> Callable[..., Answer]:
    """Run ``clusterctl`` as a program in that folder."""

    def run(*words: str, cwd: Path = folder, **env: str) -> Answer:
        done = subprocess.run(
            [CLUSTERCTL, *words], cwd=cwd, env={**home, **env}, capture_output=True, text=True, timeout=120
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def recipe(folder: Path) -> Path:
    """A recipe that validates and drafts: data on the spot, a model directory that is never loaded."""
    (folder / "data.csv").write_text('prompt,response\n"Who, then?",Player 3\n', encoding="utf-8")
    (folder / "tiny").mkdir()
    (folder / "tiny" / "config.json").write_text('{"model_type": "qwen2"}', encoding="utf-8")
    path = folder / "mine.yaml"
    path.write_text(
        "stage: sft\n"
        "profile: cpu\n"
        "model:\n"
        "  model_name_or_path: ./tiny\n"
        "data:\n"
        "  train_files: data.csv\n"
        "optim:\n"
        "  learning_rate: 1e-4\n",
        encoding="utf-8",
    )
    return path


Mounted = Callable[..., Path]


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Mounted]:
    """Mount small file systems: ``mounted(OPTIONS)``, and a folder of one's own. Only root may; others skip."""
    done: list[Path] = []

    def mount(options: str, folder: Path | None = None) -> Path:
        path = folder or tmp_path / f"mount {len(done)}"
        path.mkdir()
        argv = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
        if os.geteuid() != 0 or subprocess.run(argv, capture_output=True).returncode != 0:
            pytest.skip("file systems are mounted by root only, where mounting is allowed")
        done.append(path)
        return path

    yield mount
    for path in done:
        subprocess.run(["umount", "-l", str(path)], check=True)


def fake_program(folder: Path, name: str, script: str) -> None:
    """Put a shell script on the PATH of ``home``."""
    path = folder / name
    path.unlink(missing_ok=True)
    path.write_text(f"#!/bin/bash\n{script}\n", encoding="utf-8")
    path.chmod(0o755)


os.environ.pop("CLUSTERCTL_OUTPUT_ROOT", None)


@pytest.fixture
def box(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalBox]:
    """A private machine for the local runner."""
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))
    monkeypatch.setenv("CLUSTERCTL_LEASE_DIR", str(folder / "leases"))
    box = LocalBox(folder)
    yield box
    box.close()
