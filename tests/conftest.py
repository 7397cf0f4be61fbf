"""What all suites share: one tiny model, made once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# What our own servers of 127.0.0.1 are asked goes through nobody's proxy.
os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1,localhost"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2 model with random weights, made in a process of its own: torch stays out of this one."""
    path = tmp_path_factory.mktemp("model") / "tiny"
    code = "import sys, pathlib; from tests.tiny import make_tiny_model; make_tiny_model(pathlib.Path(sys.argv[1]))"
    root = Path(__file__).resolve().parent.parent
    subprocess.run([sys.executable, "-c", code, str(path)], cwd=root, check=True, capture_output=True)
    return path
