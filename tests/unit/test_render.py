"""The script: whatever a person writes into recipe, profile or site, it arrives unchanged and nothing of it runs."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clusterctl import assets, render
from clusterctl.errors import UsageProblem
from clusterctl.model import Activation, Plan, Resources

TEMPLATE = assets.shipped_dir("job_templates") / "job.sh.j2"
HOSTILE = [
    "a'; touch pwned; '",
    '"; touch pwned; "',
    "$(touch pwned)",
    "`touch pwned`",
    "\\",
    "a b  c",
    "-n",
    "#not a comment",
    "50%",
    "狼人杀 🐺",
    "${IFS}",
    "!!",
    "~root",
    "*",
    "a\\'b",
    "{{ 7*7 }}",
]
# What can stand in a line of a shell script at all: no line breaks, NUL or lone surrogates.
lines = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1, max_size=40)
names = st.sampled_from(HOSTILE) | lines


def plan(name: str = "n", scheduler: str = "slurm", **changes: object) -> Plan:
    resources = Resources(**{"mem": "8G", **changes.pop("resources", {})})  # type: ignore[arg-type]
    values: dict[str, object] = {
        "launcher": "python",
        "zero": False,
        "processes_per_node": 1,
        "version": "0",
        "activation": Activation(kind="python", target="python3"),
        **changes,
    }
    return Plan(name=name, scheduler=scheduler, resources=resources, **values)  # type: ignore[arg-type]


def fake_python(folder: Path) -> Path:
    """A stand-in interpreter: answers the guard and writes down how the trainer was called."""
    path = folder / "py thon"
    path.write_text(
        "#!/usr/bin/env python3\n"
        "import json, os, sys\n"
        "if sys.argv[1] == '-m' and sys.argv[2] == 'trainers.guard':\n"
        "    print(1) if sys.argv[3] == 'begin' else None\n"
        "elif sys.argv[1] == '-m':\n"
        "    json.dump({'env': dict(os.environ), 'argv': sys.argv}, open('seen.json', 'w'))\n",
        encoding="utf-8",
    )
    path.chmod(0o755)
    return path


def run_script(one: Plan, folder: Path, **env: str) -> dict[str, dict[str, str]]:
    """Run the rendered script for real and return what the trainer saw."""
    (folder / "run.yaml").write_text("{}", encoding="utf-8")
    (folder / "job.sh").write_text(render.render(one, TEMPLATE), encoding="utf-8")
    home = {"HOME": str(folder), "PATH": os.environ["PATH"], **env}
    done = subprocess.run(["bash", "job.sh"], cwd=folder, env=home, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "seen.json").read_text(encoding="utf-8"))


@settings(max_examples=120, deadline=None)
@given(
    values=st.tuples(names, names, names, names, names, names),
    kind=st.sampled_from(["none", "conda", "venv", "uv", "python"]),
    launcher=st.sampled_from(["python", "torchrun", "accelerate", "deepspeed"]),
    nodes=st.sampled_from([1, 2]),
)
def test_every_hostile_value_passes_bash_n(values: tuple[str, ...], kind: str, launcher: str, nodes: int) -> None:
    name, partition, account, value, module, secrets = values
    activation = Activation((module,), kind, value, (("KEY", value),), secrets, ("A", "B"))  # type: ignore[arg-type]
    asked = {"partition": partition, "account": account, "nodes": nodes, "gpus_per_node": 2}
    one = plan(name, activation=activation, launcher=launcher, resources=asked, processes_per_node=2)
    done = subprocess.run(["bash", "-n"], input=render.render(one, TEMPLATE), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@settings(max_examples=25, deadline=None)
@given(values=st.lists(names, min_size=1, max_size=4), launcher=st.sampled_from(["python", "torchrun"]))
@example(values=HOSTILE, launcher="python")
def test_values_arrive_unchanged_and_nothing_is_executed(values: list[str], launcher: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "a'; touch pwned; 狼 $(x)"
        folder.mkdir()
        env = tuple((f"V{i}", value) for i, value in enumerate(values))
        activation = Activation(kind="python", target=str(fake_python(folder)), env=env)
        seen = run_script(plan(activation=activation, launcher=launcher), folder)
        assert [seen["env"][f"V{i}"] for i in range(len(values))] == values
        assert seen["argv"][-1] == str(folder / "run.yaml")
        assert not list(Path(scratch).rglob("pwned"))


@settings(max_examples=40, deadline=None)
@given(value=names)
def test_sbatch_quote_survives_sbatchs_own_parser(value: str) -> None:
    """The rules of that parser, as tried on the real one: see tests/slurm/test_submit.py."""
    quoted = render.sbatch_quote(value)
    assert quoted[0] == quoted[-1] == '"'
    arrived, escaped = "", False
    for character in quoted[1:-1]:
        assert escaped or character != '"'
        if character == "\\" and not escaped:
            escaped = True
            continue
        arrived, escaped = arrived + character, False
    assert arrived == value


def test_secrets_come_from_the_file_and_the_environment_wins(tmp_path: Path) -> None:
    secrets = tmp_path / "sec rets.env"
    secrets.write_text(
        "# keys\nSWANLAB_API_KEY=from file=with equals=\nexport WANDB_API_KEY='quoted $(touch pwned)'\nOTHER=x\n",
        encoding="utf-8",
    )
    secrets.chmod(0o600)
    activation = Activation(
        kind="python",
        target=str(fake_python(tmp_path)),
        secrets_file="~/sec rets.env",
        secret_names=("SWANLAB_API_KEY", "WANDB_API_KEY", "HF_TOKEN"),
    )
    seen = run_script(plan(activation=activation), tmp_path, HF_TOKEN="from env")["env"]
    assert seen["SWANLAB_API_KEY"] == "from file=with equals="
    assert seen["WANDB_API_KEY"] == "quoted $(touch pwned)"
    assert seen["HF_TOKEN"] == "from env"
    assert "OTHER" not in seen
    assert not (tmp_path / "pwned").exists()


def failing(one: Plan, folder: Path, **env: str) -> str:
    (folder / "run.yaml").write_text("{}", encoding="utf-8")
    (folder / "job.sh").write_text(render.render(one, TEMPLATE), encoding="utf-8")
    home = {"HOME": str(folder), "PATH": os.environ["PATH"], **env}
    done = subprocess.run(["bash", "job.sh"], cwd=folder, env=home, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert not (folder / "seen.json").exists()
    return done.stderr


def test_a_secrets_file_that_others_can_read_stops_the_job(tmp_path: Path) -> None:
    (tmp_path / "s.env").write_text("HF_TOKEN=x\n", encoding="utf-8")
    (tmp_path / "s.env").chmod(0o644)
    activation = Activation(
        kind="python", target=str(fake_python(tmp_path)), secrets_file="~/s.env", secret_names=("HF_TOKEN",)
    )
    assert "can be read by others" in failing(plan(activation=activation), tmp_path)


@pytest.mark.parametrize(
    ("activation", "words"),
    [
        (Activation(kind="venv", target="/no/such env"), "there is no environment /no/such env"),
        (Activation(kind="uv", target="/no/project"), "make it: uv sync"),
        (Activation(kind="conda", target="wolf"), "conda is not on PATH"),
        (Activation(kind="python", target="/no/python"), "there is no /no/python"),
        (Activation(modules=("cuda/99",), kind="python", target="python3"), "modules"),
    ],
)
def test_a_missing_environment_is_named(tmp_path: Path, activation: Activation, words: str) -> None:
    assert words in failing(plan(activation=activation), tmp_path, PATH="/usr/bin:/bin")


MODULE = r"""module() {
    [ "$1" = load ] || return 0
    case "$2" in
    good/*) LOADEDMODULES="${LOADEDMODULES:+$LOADEDMODULES:}$2"; export LOADEDMODULES ;;
    esac
    return 0   # as old versions do, whatever happened
}"""


def test_modules_load_in_order_and_a_missing_one_is_named(tmp_path: Path) -> None:
    exported = {"BASH_FUNC_module%%": MODULE.removeprefix("module")}
    python = str(fake_python(tmp_path))
    good = Activation(modules=("good/b 1", "good/a"), kind="python", target=python)
    seen = run_script(plan(activation=good), tmp_path, **exported)["env"]
    assert seen["LOADEDMODULES"] == "good/b 1:good/a"
    (tmp_path / "seen.json").unlink()
    bad = Activation(modules=("good/a", "bad/x"), kind="python", target=python)
    assert "module bad/x could not be loaded" in failing(plan(activation=bad), tmp_path, **exported)


def test_conda_is_activated_with_a_hostile_name(tmp_path: Path) -> None:
    """A stand-in conda at the outermost edge: a program on PATH and its shell function."""
    (tmp_path / "etc/profile.d").mkdir(parents=True)
    (tmp_path / "etc/profile.d/conda.sh").write_text('conda() { [ "$1" = activate ] && export ACTIVE="$2"; }\n')
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/conda").write_text(f'#!/bin/sh\necho "{tmp_path}"\n')
    (tmp_path / "bin/conda").chmod(0o755)
    (tmp_path / "bin/python").symlink_to(fake_python(tmp_path))
    activation = Activation(kind="conda", target=HOSTILE[0])
    seen = run_script(plan(activation=activation), tmp_path, PATH=f"{tmp_path}/bin:{os.environ['PATH']}")
    assert seen["env"]["ACTIVE"] == HOSTILE[0]


def test_header_says_what_was_asked() -> None:
    asked = {
        "nodes": 2,
        "gpus_per_node": 4,
        "gpu_type": "a800",
        "cpus_per_task": 12,
        "time_limit": 90061,
        "signal_lead": 77,
        "partition": "p",
        "qos": "q",
    }
    text = render.render(plan("job", resources=asked, launcher="torchrun", processes_per_node=4), TEMPLATE)
    header = [line for line in text.splitlines() if line.startswith("#SBATCH")]
    for line in (
        '--job-name="job"',
        '--partition="p"',
        '--qos="q"',
        "--nodes=2",
        "--ntasks-per-node=1",
        "--cpus-per-task=12",
        '--gpus-per-node="a800:4"',
        "--time=1-01:01:01",
        "--signal=B:USR1@77",
        "--open-mode=append",
        "--requeue",
    ):
        assert f"#SBATCH {line}" in header
    # sbatch reads its lines before the shell does and stops at the first command.
    first_command = next(i for i, line in enumerate(text.splitlines()) if line and not line.startswith("#"))
    assert all(not line.startswith("#SBATCH") for line in text.splitlines()[first_command:])
    local = render.render(plan("job", "local"), TEMPLATE)
    assert "#SBATCH" not in local
    assert "srun" not in local


def test_gres_instead_of_gpus_per_node() -> None:
    asked = {"gpus_per_node": 1, "gpu_type": "a40", "gpu_request": "gres"}
    assert '#SBATCH --gres="gpu:a40:1"' in render.render(plan(resources=asked), TEMPLATE)


@pytest.mark.parametrize("text", ["{{ plan.nothing }}", "{% if %}", "{{ plan."])
def test_a_broken_template_is_one_line_with_its_place(tmp_path: Path, text: str) -> None:
    path = tmp_path / "job.sh.j2"
    path.write_text(f"#!/bin/bash\n{text}\n", encoding="utf-8")
    with pytest.raises(UsageProblem, match=r"job\.sh\.j2"):
        render.render(plan(), path)
