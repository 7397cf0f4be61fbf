"""Every shipped recipe and profile validates, renders, and prints in a dry run what lies in tests/golden.

Where a difference is meant: ``python -m tests.golden_files``, and look at it before you commit it.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from clusterctl.runs.draft import draft
from clusterctl.runs.request import Request
from clusterctl.settings import Settings
from tests.golden_files import CLUSTER, GOLDEN, ROOT, SITE, cases, shipped, text_of
from trainers.data.examples import load_examples

CASES = dict(cases())
SHELLCHECK = Path(sys.executable).with_name("shellcheck")


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    for name in ("CLUSTERCTL_PATH", "CLUSTERCTL_SITE", "CLUSTERCTL_OUTPUT_ROOT", "CLUSTERCTL_SCHEDULER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path))


@pytest.mark.parametrize("name", CASES)
def test_dry_run(name: str) -> None:
    assert text_of(CASES[name]) == (GOLDEN / f"{name}.sh").read_text(encoding="utf-8")


def test_there_is_a_golden_file_for_everything_shipped_and_for_nothing_else() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(CASES)
    assert {f"recipe-{name}" for name in shipped("recipes")} | {
        f"profile-{name}" for name in shipped("profiles")
    } < set(CASES)


def test_golden_files_know_nothing_of_this_machine() -> None:
    for path in GOLDEN.iterdir():
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"/root/|/home/|/work/|/tmp/|-20\d{6}-", text), path.name


def test_every_kind_of_script_passes_shellcheck(tmp_path: Path) -> None:
    """Scripts that differ only in their numbers are one kind."""
    kinds: dict[str, str] = {}
    for path in sorted(GOLDEN.iterdir()):
        for script in re.split(r"(?m)^(?=#!)", path.read_text(encoding="utf-8"))[1:]:
            code = "\n".join(line for line in script.splitlines() if not line.startswith("#"))
            kinds.setdefault(re.sub(r"\d+", "N", code), script)
    assert len(kinds) > 5
    for number, script in enumerate(kinds.values()):
        (tmp_path / f"{number}.sh").write_text(script, encoding="utf-8")
    done = subprocess.run([SHELLCHECK, *tmp_path.glob("*.sh")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", [name for name in shipped("recipes") if name not in ("ppo",)])
def test_every_recipe_runs_as_it_is_on_the_profile_cpu(name: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    sets = (f"model.model_name_or_path={tmp_path}",)
    text = text_of(Request(name, profile="cpu", sets=sets, scheduler="local", force_start=True))
    assert f"model_name_or_path: {tmp_path}" in text


@pytest.mark.parametrize(
    ("name", "learning_rate", "steps", "rows"),
    [
        ("dpo", 5e-7, 10_000, 16),
        ("stage1", 1e-4, 1000, 12),
        ("stage2", 3e-5, 2000, 8),
        ("qwen3-14b-full", 1e-5, -1, 64),
    ],
)
@pytest.mark.parametrize("profile", ["a800-4-zero3", "a800-2-zero3", "a800-1", "a40-4-zero3-offload"])
def test_the_known_numbers_of_a_recipe_are_the_same_on_any_hardware(
    name: str, learning_rate: float, steps: int, rows: int, profile: str
) -> None:
    """A step sees as many rows however they are split."""
    [one] = draft(Request(name, profile=profile, force_start=True), Settings(SITE, {}), CLUSTER)
    config = one.composed.config
    optim = config.optim
    split = optim.per_device_train_batch_size * optim.gradient_accumulation_steps * config.parallel.world_size
    assert (optim.learning_rate, optim.max_steps, optim.train_batch_size, split) == (learning_rate, steps, rows, rows)
    if name == "qwen3-14b-full":
        assert (optim.per_device_train_batch_size, config.data.max_train_samples) == (2, 1000)


def test_the_recipe_of_1000_rows_has_them() -> None:
    [one] = draft(Request("qwen3-14b-full", force_start=True), Settings(SITE, {}), CLUSTER)
    assert one.composed.profile_name == "a800-4-zero3"
    assert len(load_examples(one.composed.config).train) == 1000
