"""The command line as a person and a program use it, on one machine without Slurm."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.conftest import CLUSTERCTL, Answer

Cli = Callable[..., Answer]

LOADED = """
import sys
sys.argv = ["clusterctl", *{words!r}]
from clusterctl.cli import main
try:
    main()
except SystemExit:
    pass
print("\\n".join(sys.modules), file=sys.stderr)
"""


def modules(*words: str, cwd: Path, env: dict[str, str]) -> set[str]:
    """The modules that a command loads."""
    code = LOADED.format(words=words)
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, env=env, capture_output=True, text=True)
    return set(done.stderr.split())


HEAVY = {"torch", "transformers", "jinja2", "yaml", "pynvml", "pydantic", "trl", "peft", "datasets", "submitit"}


def test_version_loads_next_to_nothing(folder: Path, home: dict[str, str]) -> None:
    loaded = modules("--version", cwd=folder, env=home)
    assert "clusterctl.cli" in loaded
    assert len(loaded) < 150
    assert not loaded & HEAVY


def test_commands_load_only_what_they_need(folder: Path, recipe: Path, home: dict[str, str]) -> None:
    for words in (["status"], ["--help"], ["submit", "--help"], ["status", "--json"]):
        assert not modules(*words, cwd=folder, env=home) & HEAVY
    submitting = modules("submit", str(recipe), "--dry-run", cwd=folder, env=home)
    assert not submitting & {"torch", "transformers", "trl", "peft", "datasets", "pynvml", "submitit"}
    stages = {one for one in submitting if one.startswith("trainers.config.stages.")}
    assert stages == {"trainers.config.stages.sft"}


def test_every_command_has_help_with_examples(cli: Cli) -> None:
    listing = cli("--help").out
    for command in ("submit", "test", "status", "report", "tail", "cancel", "resume", "run", "gpus"):
        assert command in listing
        answer = cli(command, "--help")
        assert answer.code == 0
        assert f"clusterctl {command}" in answer.out
        assert "--json" in answer.out


def test_dry_run_prints_the_bytes_that_are_submitted_and_writes_nothing(cli: Cli, recipe: Path, folder: Path) -> None:
    before = set(folder.rglob("*"))
    dry = cli("submit", str(recipe), "--name", 'it\'s a "x" 狼', "--dry-run")
    assert dry.code == 0
    assert set(folder.rglob("*")) == before
    answer = cli("submit", str(recipe), "--name", 'it\'s a "x" 狼', "--json")
    assert answer.code == 0, answer.out
    run_dir = Path(answer.json["data"]["runs"][0]["run_dir"])
    assert (run_dir / "job.sh").read_text(encoding="utf-8") == dry.out
    cli("cancel", "last")


def test_a_dry_run_as_json_holds_the_same_script(cli: Cli, recipe: Path) -> None:
    plain = cli("submit", str(recipe), "--dry-run")
    assert cli("submit", str(recipe), "--dry-run", "--json").json["data"]["scripts"][0]["script"] == plain.out


@pytest.mark.parametrize("kind", ["recipes", "profiles"])
def test_assets_are_listed_shown_copied_and_shadowed(cli: Cli, folder: Path, kind: str) -> None:
    name = {"recipes": "sft", "profiles": "cpu"}[kind]
    shipped = cli(kind, "list", "--json").json["data"]
    assert {a["origin"] for a in shipped} == {"shipped"}
    assert name in {a["name"] for a in shipped}
    shown = cli(kind, "show", name)
    assert shown.out.startswith("# ")
    copied = cli(kind, "copy", name)
    assert copied.code == 0
    assert (folder / kind / f"{name}.yaml").is_file()
    again = cli(kind, "copy", name)
    assert (again.code, "not overwritten" in again.err) == (2, True)
    own = next(a for a in cli(kind, "list", "--json").json["data"] if a["name"] == name)
    assert own["origin"] == "working directory"
    assert len(own["shadows"]) == 1


def test_every_shipped_profile_and_recipe_drafts(cli: Cli, recipe: Path) -> None:
    files = [profile["name"] for profile in cli("profiles", "list", "--json").json["data"]]
    assert files == ["cpu", "cpu-offload", "sft-v2"]
    for name in (*files, "a800-1", "a40-4-zero3-offload", "gpu-2-fsdp", "a800-2x4"):
        answer = cli("submit", str(recipe), "--profile", name, "--dry-run")
        if "2x4" in name:
            assert (answer.code, "without Slurm there is one" in answer.err) == (2, True), answer.err
            continue
        assert answer.code == 0, answer.err
        assert answer.out.startswith("#!/usr/bin/env bash\n")
        done = subprocess.run(["bash", "-n"], input=answer.out, text=True, capture_output=True)
        assert done.returncode == 0, done.stderr
    data = ["--set", f"data.train_files={recipe.parent}/data.csv", "--set", "data.eval_files=[]"]
    for name, scripts in (("basic", 1), ("sft", 1), ("full", 2)):
        answer = cli("submit", name, *data, "--dry-run", "--json")
        assert len(answer.json["data"]["scripts"]) == scripts


def test_the_default_profile_is_the_recipes(cli: Cli, recipe: Path) -> None:
    recipe.write_text(recipe.read_text(encoding="utf-8").replace("profile: cpu", "profile: a800-4"), encoding="utf-8")
    answer = cli("submit", str(recipe), "--dry-run")
    assert "torch.distributed.run" in answer.out
    assert "--nproc-per-node=4" in answer.out


def test_where_a_value_comes_from_decides(cli: Cli, recipe: Path) -> None:
    """Profile over recipe, --set over both."""
    profile = recipe.with_name("p.yaml")
    profile.write_text("set: {optim.learning_rate: 5e-5}\n", encoding="utf-8")

    def rate(*words: str) -> str:
        answer = cli("submit", str(recipe), *words, "--json")
        text = (Path(answer.json["data"]["runs"][0]["run_dir"]) / "run.yaml").read_text(encoding="utf-8")
        cli("cancel", "last")
        return next(line for line in text.splitlines() if "learning_rate" in line).split()[-1]

    assert float(rate()) == 1e-4
    assert float(rate("--profile", str(profile))) == 5e-5
    assert float(rate("--profile", str(profile), "--set", "optim.learning_rate=7e-6")) == 7e-6


def test_completion_knows_runs_recipes_and_profiles(home: dict[str, str], folder: Path) -> None:
    env = {
        **home,
        "_CLUSTERCTL_COMPLETE": "complete_bash",
        "COMP_WORDS": "clusterctl submit s",
        "COMP_CWORD": "2",
    }
    done = subprocess.run([CLUSTERCTL], cwd=folder, env=env, capture_output=True, text=True)
    assert "sft" in done.stdout.split()


def test_a_closed_pipe_is_no_traceback(home: dict[str, str], folder: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f"'{CLUSTERCTL}' profiles list | true"],
        cwd=folder,
        env={**home, "PATH": f"{home['PATH']}:/usr/bin"},
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr


def test_json_of_every_command_is_one_envelope(cli: Cli, recipe: Path) -> None:
    for words in (["status"], ["recipes", "list"], ["profiles", "show", "cpu"], ["submit", str(recipe), "--dry-run"]):
        answer = cli(*words, "--json")
        envelope = json.loads(answer.out)
        assert set(envelope) == {"schema", "command", "ok", "data", "error"}
        assert envelope["ok"] is True
        assert envelope["command"].split() == words[: len(envelope["command"].split())]
