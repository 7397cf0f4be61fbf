"""The doctor where PyTorch is: a healthy machine has no failure, and what is planted in the environment is found."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.doctor import failed, found
from tests.fake_nvml.build import A40, fake_nvml_env
from tests.project import Project
from tests.train.conftest import environment
from trainers.doctor import communication, training
from trainers.doctor.check import Asked

PROFILE = """\
cpus_per_task: 1
mem: 500M
signal_lead: 30
processes_per_node: 2
launcher: torchrun
strategy: ddp
dtype: fp32
env: {OMP_NUM_THREADS: 1}
"""


@pytest.fixture
def hub() -> Iterator[str]:
    """A hub that answers."""

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"[]")

        def log_message(self, *words: object) -> None:
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_healthy_machine_has_no_failure_and_its_processes_talk(folder: Path, hub: str) -> None:
    (folder / "profiles").mkdir()
    (folder / "profiles/two.yaml").write_text(PROFILE, encoding="utf-8")
    (folder / "clusterctl.yaml").write_text(f"scheduler: local\nhugging_face: {{endpoint: {hub}}}\n", encoding="utf-8")
    (folder / "home").mkdir()
    env = {**environment(LC_ALL="C.UTF-8", HF_HUB_OFFLINE="", HOME=str(folder / "home")), "no_proxy": "127.0.0.1"}
    answer = Project(folder, env).cli("doctor", "--on", "two", "--json")
    assert (answer.code, failed(answer)) == (0, set()), answer.out + answer.err
    job = "job with profile two"
    assert "gloo: all-reduce of 2 processes" in found(answer, "communication", job)["evidence"]
    assert "torch 2." in found(answer, "packages", job)["evidence"]
    for name in ("python", "hub", "output root", "write speed", "clock against here", "job"):
        assert found(answer, name, job)["state"] == "ok", name
    assert list((folder / "logs").iterdir()) == []


def test_a_process_that_nobody_meets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(communication._free_port())}.items():
        monkeypatch.setenv(name, value)
    [check] = communication.check_communication(Asked("/", nodes=2, patience=2))
    assert (check.state, "1 of 1 processes here" in check.evidence) == ("fail", True)
    assert "NCCL_DEBUG=INFO" in check.remedy


def test_flash_attention_of_another_pytorch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "flash_attn.py").write_text('raise ImportError("undefined symbol: _ZN3c10")', encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder))
    [check] = training.check_flash_attention(Asked("/"))
    assert (check.state, "undefined symbol" in check.evidence) == ("fail", True)
    assert "pip uninstall flash-attn" in check.remedy


def test_a_pytorch_for_cpus_beside_a_driver(tmp_path: Path) -> None:
    code = (
        "import json, sys; from dataclasses import asdict; from trainers.doctor import check, training\n"
        "found = [*training.check_cuda(check.Asked('/')), *training.check_gpus(check.Asked('/', gpus=2))]\n"
        "print(json.dumps([asdict(one) for one in found]))"
    )
    env = environment(**fake_nvml_env(tmp_path, [A40, A40]))
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    cuda, gpus = json.loads(done.stdout)
    assert (cuda["state"], "CUDA build" in cuda["remedy"]) == ("fail", True)
    assert (gpus["state"], gpus["evidence"]) == ("fail", "2 asked for, PyTorch sees none")
