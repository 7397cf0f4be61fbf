"""What the tests of ``clusterctl doctor`` share: an environment without PyTorch, and the findings of an answer."""

from __future__ import annotations

import sys
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pynvml

from tests.project import Answer

ROOT = Path(__file__).resolve().parents[1]


def make_bare_environment(folder: Path) -> Path:
    """A virtual environment with the trainers' code, NVML's bindings, and none of the packages that train."""
    venv.EnvBuilder(with_pip=False, symlinks=True).create(folder)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = folder / "lib" / version / "site-packages"
    (packages / "trainers.pth").write_text(f"{ROOT}\n", encoding="utf-8")
    (packages / "pynvml.py").symlink_to(str(pynvml.__file__))
    return folder


def findings(answer: Answer, section: str = "") -> Iterator[dict[str, Any]]:
    """The checks of ``doctor --json``, of the sections whose titles begin so."""
    for one in answer.json["data"]["sections"]:
        if one["title"].startswith(section):
            yield from one["checks"]


def found(answer: Answer, name: str, section: str = "") -> dict[str, Any]:
    """The one check of this name."""
    [check] = [check for check in findings(answer, section) if check["name"] == name]
    assert check["state"] == "ok" or check["remedy"], check
    return check


def failed(answer: Answer) -> set[str]:
    """The names of the checks that failed."""
    return {check["name"] for check in findings(answer) if check["state"] == "fail"}
