"""Faults planted for real, each of which ``clusterctl doctor`` has to find with its remedy. One machine, no Slurm."""

from __future__ import annotations

import json
import resource
import socket
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from clusterctl.doctor.node import read
from tests.doctor import failed, found, make_bare_environment
from tests.fake_nvml.build import A40, fake_nvml_env
from tests.unit.conftest import CLUSTERCTL, Answer, Mounted, fake_program

Cli = Callable[..., Answer]
KEY = "not-a-key-but-secret"


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment in which nothing can train: what it lacks is found at once."""
    return make_bare_environment(tmp_path_factory.mktemp("bare") / "a b'")


@pytest.fixture
def doctor(cli: Cli, folder: Path, bare: Path) -> Cli:
    """``clusterctl doctor --json`` with a site file of these keys."""

    def run(site: dict[str, object] | None = None, **env: str) -> Answer:
        whole = {"scheduler": "local", "environment": {"kind": "venv", "path": str(bare)}, **(site or {})}
        (folder / "clusterctl.yaml").write_text(yaml.safe_dump(whole), encoding="utf-8")
        return cli("doctor", "--json", **env)

    return run


# --- keys -------------------------------------------------------------------------------------


def test_a_key_that_is_none_and_is_never_shown(doctor: Cli) -> None:
    site = {"tracking": {"report_to": ["wandb"]}}
    answer = doctor(site, WANDB_API_KEY=KEY, HF_TOKEN=f"hf_{KEY}!")
    check = found(answer, "WANDB_API_KEY")
    assert (check["state"], "20 characters" in check["evidence"]) == ("fail", True)
    assert "chmod 600" in check["remedy"]
    assert found(answer, "HF_TOKEN")["state"] == "warn"  # nothing here logs in to the hub
    assert answer.code == 1
    assert KEY not in answer.out + answer.err


def test_a_key_that_is_missing_and_one_of_the_right_form(doctor: Cli, home: dict[str, str]) -> None:
    site = {"tracking": {"report_to": ["swanlab"], "swanlab_mode": "cloud"}}
    assert found(doctor(site), "SWANLAB_API_KEY")["state"] == "fail"
    file = Path(home["HOME"]) / ".config/clusterctl/secrets.env"
    file.parent.mkdir(parents=True)
    file.touch(0o600)
    # Of several lines a job takes the first that has a value.
    lines = "SWANLAB_API_KEY=\r\nexport SWANLAB_API_KEY='abcdefgh12345678901234'\nSWANLAB_API_KEY=short\n"
    file.write_text(lines, encoding="utf-8")
    answer = doctor(site)
    assert found(answer, "SWANLAB_API_KEY")["state"] == found(answer, "secrets file")["state"] == "ok"
    assert "abcdefgh" not in answer.out


def test_a_secrets_file_that_others_can_read(doctor: Cli, home: dict[str, str]) -> None:
    file = Path(home["HOME"]) / "keys"
    file.write_text("HF_TOKEN=x\n", encoding="utf-8")
    file.chmod(0o644)
    check = found(doctor({"secrets": {"file": str(file)}}), "secrets file")
    assert (check["state"], "0644" in check["evidence"], check["remedy"]) == ("fail", True, f"chmod 600 {file}")


# --- the environment --------------------------------------------------------------------------


def test_no_module_command_and_a_module_that_is_not_there(doctor: Cli) -> None:
    site = {"modules": ["cuda/99"]}
    check = found(doctor(site), "environment")
    assert (check["state"], "no environment modules" in check["evidence"]) == ("fail", True)
    assert "remove `modules`" in check["remedy"]
    # What bash exports of a function that loads nothing.
    check = found(doctor(site, **{"BASH_FUNC_module%%": "() { :; }"}), "environment")
    assert (check["state"], "module cuda/99 could not be loaded" in check["evidence"]) == ("fail", True)
    assert "module avail cuda" in check["remedy"]


def test_a_virtual_environment_that_is_not_there_hides_nothing_else(doctor: Cli) -> None:
    answer = doctor({"environment": {"kind": "venv", "path": "/no/such"}})
    check = found(answer, "environment")
    assert (check["state"], "python3 -m venv /no/such" in check["remedy"]) == ("fail", True)
    assert found(answer, "write speed")["state"] == "ok"


def test_a_package_that_is_missing_one_that_breaks_and_one_that_is_old(doctor: Cli, tmp_path: Path) -> None:
    packages = {"peft/__init__.py": 'raise RuntimeError("undefined symbol")', "datasets/__init__.py": ""}
    packages |= {
        "datasets-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: datasets\nVersion: 1.0\n",
        "clusterctl-9.dist-info/METADATA": "Metadata-Version: 2.1\nName: clusterctl\nVersion: 9\n"
        "Requires-Dist: datasets>=5; extra == 'train'\n",
    }
    for name, text in packages.items():
        (tmp_path / "lib" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "lib" / name).write_text(text, encoding="utf-8")
    answer = doctor(PYTHONPATH=str(tmp_path / "lib"))
    assert found(answer, "package torch")["remedy"] == "pip install 'clusterctl[train]'"
    assert "undefined symbol" in found(answer, "package peft")["evidence"]
    assert found(answer, "package datasets")["remedy"] == "pip install -U 'datasets>=5'"
    assert {f"package {name}" for name in ("torch", "transformers", "trl", "peft", "datasets")} <= failed(answer)
    assert found(answer, "CUDA")["state"] == "skipped"
    assert answer.code == 1


def test_packages_that_the_site_needs_besides(doctor: Cli) -> None:
    assert "package swanlab" in failed(doctor({"tracking": {"report_to": "swanlab"}}))


# --- the driver -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "words", "remedy"), [(9, "not loaded", "modprobe nvidia"), (18, "was upgraded", "reboot")]
)
def test_a_broken_driver(doctor: Cli, tmp_path: Path, error: int, words: str, remedy: str) -> None:
    check = found(doctor(**fake_nvml_env(tmp_path, [A40], init_error=error)), "driver")
    assert (check["state"], words in check["evidence"], remedy in check["remedy"]) == ("fail", True, True)


def test_a_driver_that_works_and_none(doctor: Cli, tmp_path: Path) -> None:
    check = found(doctor(**fake_nvml_env(tmp_path, [A40])), "driver")
    assert (check["state"], check["evidence"]) == ("ok", "550.163.01, for CUDA up to 12.4")
    (tmp_path / "libnvidia-ml.so.1").touch()  # found first, and none
    assert found(doctor(LD_LIBRARY_PATH=str(tmp_path)), "driver")["state"] == "skipped"


# --- disks ------------------------------------------------------------------------------------


def test_a_disk_that_is_full(doctor: Cli, mounted: Mounted) -> None:
    root = mounted("size=3m")
    answer = doctor({"output_root": str(root)})
    check = found(answer, "write speed")
    assert (check["state"], "no space is left" in check["evidence"]) == ("fail", True)
    assert "ask for a larger quota" in check["remedy"]
    assert found(answer, "free space")["state"] == "fail"
    assert not list(root.iterdir())


def test_a_disk_without_inodes(doctor: Cli, mounted: Mounted) -> None:
    check = found(doctor({"output_root": str(mounted("size=100m,nr_inodes=20"))}), "inodes")
    assert (check["state"], "many small files" in check["remedy"]) == ("fail", True)


def test_an_output_root_that_is_read_only(doctor: Cli, mounted: Mounted) -> None:
    check = found(doctor({"output_root": str(mounted("size=1m,ro") / "runs")}), "output root")
    assert (check["state"], "Read-only file system" in check["evidence"]) == ("fail", True)
    assert "`output_root`" in check["remedy"]


def test_an_output_root_that_nobody_can_make(doctor: Cli) -> None:
    assert found(doctor({"output_root": "/proc/runs"}), "output root")["state"] == "fail"


def test_a_home_that_is_nearly_full_and_one_that_is_not_there(doctor: Cli, tmp_path: Path) -> None:
    line = "/dev/sda1 97000* 100000 110000 6days 10 0 0"
    fake_program(tmp_path / "bin", "quota", f"echo 'Disk quotas for user me:'; echo '{line}'; exit 1")
    check = found(doctor(), "home")
    assert (check["state"], "97% of the quota" in check["evidence"]) == ("warn", True)
    assert "hugging_face.home" in check["remedy"]
    assert found(doctor(HOME="/no/such"), "home")["state"] == "warn"


# --- network, limits, locale ------------------------------------------------------------------


def test_an_endpoint_that_is_dead(doctor: Cli) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and nobody listens
        endpoint = f"http://me:{KEY}@127.0.0.1:{bound.getsockname()[1]}"
        answer = doctor({"hugging_face": {"endpoint": endpoint}})
    check = found(answer, "hub")
    assert (check["state"], "refused" in check["evidence"]) == ("fail", True)
    assert "hugging_face.endpoint" in check["remedy"]
    assert KEY not in check["evidence"]
    assert found(doctor({"hugging_face": {"endpoint": "ftp://hub"}}), "hub")["state"] == "fail"


def test_offline_with_and_without_models(doctor: Cli, tmp_path: Path) -> None:
    site = {"hugging_face": {"home": str(tmp_path / "hf"), "offline": True}}
    assert found(doctor(site), "hub")["state"] == "warn"
    for revision in "12":
        (tmp_path / "hf/hub/models--a--b/snapshots" / revision).mkdir(parents=True)
    check = found(doctor(site), "hub")
    assert (check["state"], check["evidence"]) == ("ok", "offline, 1 model in the cache")


def test_few_open_files_and_a_locale_that_is_not_there(
    folder: Path, home: dict[str, str], bare: Path, doctor: Cli
) -> None:
    doctor()  # writes the site file

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))

    env = {**home, "LC_ALL": "xx_XX.UTF-8"}
    done = subprocess.run(
        [CLUSTERCTL, "doctor", "--json"], cwd=folder, env=env, capture_output=True, text=True, preexec_fn=limit
    )
    answer = Answer(done.returncode, done.stdout, done.stderr)
    check = found(answer, "open files")
    assert (check["state"], check["evidence"].startswith("256")) == ("warn", True)
    assert "nofile" in check["remedy"]
    check = found(answer, "locale")
    assert (check["state"], "C.UTF-8" in check["remedy"]) == ("warn", True)


V100 = """
from types import SimpleNamespace as Some
__version__, version = "2.99", Some(cuda="13.0", hip=None)
cuda = Some(
    is_available=lambda: False,
    device_count=lambda: 1,
    get_device_name=lambda index: "Tesla V100",
    get_device_capability=lambda index: (7, 0),
)
"""


def test_a_pytorch_too_new_for_the_driver_and_a_card_without_bf16(
    bare: Path, home: dict[str, str], tmp_path: Path
) -> None:
    """PyTorch is a stand-in that says what a real one would say of such a machine."""
    (tmp_path / "torch.py").write_text(V100, encoding="utf-8")
    asked = {"output_root": "/", "parts": ["training"], "needs": [], "gpus": 1, "dtype": "bf16"}
    (tmp_path / "asked.json").write_text(json.dumps(asked), encoding="utf-8")
    argv = [bare / "bin/python", "-m", "trainers.doctor", tmp_path / "asked.json"]
    env = {**home, "PYTHONPATH": str(tmp_path), **fake_nvml_env(tmp_path, [A40])}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=True)
    checks = {check.name: check for check in read(done.stdout).checks}
    check = checks["CUDA"]
    assert (check.state, "CUDA 13.0, the driver knows CUDA up to 12.4" in check.evidence) == ("fail", True)
    assert "newer driver" in check.remedy
    check = checks["bf16"]
    assert (check.state, "Tesla V100 has no bf16" in check.evidence) == ("fail", True)
    assert "dtype=fp16" in check.remedy


def test_a_card_that_is_lost(doctor: Cli, tmp_path: Path) -> None:
    check = found(doctor(**fake_nvml_env(tmp_path, [A40, replace(A40, faults="lost")])), "driver")
    assert (check["state"], "GPU 1" in check["evidence"]) == ("fail", True)
    assert "clusterctl gpus" in check["remedy"]


def test_a_profile_and_a_time_that_are_none(cli: Cli) -> None:
    answer = cli("doctor", "--on", "a8-1")
    assert (answer.code, "did you mean a800-1?" in answer.err) == (2, True)
    assert cli("doctor", "--wait", "soon").code == 2


def test_two_nodes_without_slurm(cli: Cli, doctor: Cli) -> None:
    doctor()  # writes the site file
    answer = cli("doctor", "--on", "a800-2x4", "--json")
    check = found(answer, "job")
    assert (check["state"], "there is only this machine" in check["evidence"]) == ("fail", True)
    assert "one node" in check["remedy"]
