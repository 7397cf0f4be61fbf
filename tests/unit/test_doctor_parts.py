"""The doctor's parts: what hangs or breaks, what several nodes say, the answer on a terminal."""

from __future__ import annotations

import ast
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from clusterctl.adapters import slurm_limits
from clusterctl.doctor import node
from clusterctl.doctor.check import Check, Report, Section, State, together
from clusterctl.model import Activation, Resources
from clusterctl.views.doctor import view
from trainers.doctor import check as theirs
from trainers.doctor import machine
from trainers.doctor.__main__ import within

ROOT = Path(__file__).resolve().parents[2]
ASKED = theirs.Asked(output_root="/")


def test_a_check_that_hangs_and_one_that_breaks_are_unknown_and_hide_nothing() -> None:
    def check_of_a_dead_file_server(asked: theirs.Asked) -> Iterator[theirs.Check]:
        yield theirs.Check("before", "ok", "fine")
        threading.Event().wait()

    before, hung = within(check_of_a_dead_file_server, ASKED, 0.2)
    assert (before.name, hung.name) == ("before", "of a dead file server")
    assert (hung.state, "no answer within 0 s" in hung.evidence) == ("unknown", True)

    def check_this(asked: theirs.Asked) -> Iterator[theirs.Check]:
        raise SystemExit("libtorch is broken")
        yield

    [broken] = within(check_this, ASKED, 5)
    assert (broken.state, broken.evidence) == ("unknown", "SystemExit: libtorch is broken")


def test_an_old_python_can_still_say_that_it_is_too_old() -> None:
    for path in (ROOT / "trainers" / "doctor").glob("*.py"):
        ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))
    assert machine.OLDEST_PYTHON == (3, 11)
    assert 'requires-python = ">=3.11"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_the_memory_of_a_job_is_that_of_its_control_group(tmp_path: Path) -> None:
    job = tmp_path / "slurm" / "job_7"
    (job / "step_0").mkdir(parents=True)
    (job / "memory.max").write_text("8589934592\n", encoding="utf-8")
    (tmp_path / "said").write_text("1:cpu,memory:/old\n0::/slurm/job_7/step_0\n", encoding="utf-8")
    old, new = machine._groups(tmp_path / "said", tmp_path)
    assert old == (tmp_path / "memory" / "old", "memory.limit_in_bytes")
    assert new == (job / "step_0", "memory.max")
    assert machine.memory_limit(tmp_path / "said", tmp_path) == 8 * 1024**3
    assert machine.memory_limit(tmp_path / "nothing", tmp_path) > 0


def at(host: str, name: str, state: State, evidence: str, value: float | None = None) -> Check:
    return Check(name, state, evidence, "" if state == "ok" else "mend it", host, value)


def test_what_all_nodes_say_stands_once_and_what_one_says_names_it() -> None:
    checks = (
        Check("job", "ok", "7 looked at 2 nodes"),
        at("n1", "write speed", "ok", "900 MiB/s"),
        at("n1", "driver", "ok", "550"),
        at("n2", "write speed", "ok", "800 MiB/s"),
        at("n2", "driver", "fail", "not loaded"),
    )
    assert [(c.host, c.name, c.state) for c in together(checks)] == [
        ("", "job", "ok"),
        ("", "write speed", "ok"),
        ("n1", "driver", "ok"),
        ("n2", "driver", "fail"),
    ]


def test_a_node_whose_clock_is_wrong() -> None:
    mine = [at("", "clock", "ok", "", 0.5)]
    nodes = [at("n1", "clock", "ok", "", 0.4), at("n2", "clock", "ok", "", -90.0)]
    right, wrong = node.check_clocks(mine, nodes)
    assert (right.state, wrong.state, wrong.host, wrong.evidence) == ("ok", "warn", "n2", "90.5 s behind this machine")
    assert "NTP" in wrong.remedy
    assert node.check_clocks([], nodes) == []


def test_exit_codes() -> None:
    def code(*states: State, name: str = "x") -> int:
        return Report((Section("s", tuple(at("", name, state, "") for state in states)),)).exit_code

    assert [code("ok", "warn", "skipped", "unknown"), code("warn", "fail"), code("unknown", name="job")] == [0, 1, 3]


def test_lines_that_are_not_ours_are_passed_over() -> None:
    said = node.read(
        'hello\n[1]\n{"doctor": 1, "host": "n", "check": {"state": "new"}}\n{"doctor": 1, "host": "n"}\n7\n'
    )
    assert (said.checks, said.done) == ((), frozenset())
    # With Slurm, lines of two nodes come mixed, but whole.
    said = node.read('{"doctor": 1, "host": "a", "done": true}\n{"doctor": 1, "host": "b", "done": true}')
    assert said.done == {"a", "b"}


def test_on_eighty_columns_with_a_hostile_host() -> None:
    check = at("n\x1b[31m[red]", "driver", "fail", "x" * 200)
    console = Console(width=80, markup=False, highlight=False, emoji=False)
    with console.capture() as shown:
        console.print(view(Report((Section("job \x07", (check,)),))))
    text = shown.get()
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "n?[31m[red]" in text
    assert max(map(len, text.splitlines())) <= 80
    assert ("FAILED" in text, "-> mend it" in text, "1 failed" in text) == (True, True, True)


@pytest.mark.parametrize(("tres", "gpus"), [("cpu=8,gres/gpu=2", 2), ("gres/gpu:a800=4", None), ("", None)])
def test_gpus_of_a_limit(tres: str, gpus: int | None) -> None:
    assert slurm_limits._gpus(tres) == gpus


def test_the_scripts_pass_shellcheck(tmp_path: Path) -> None:
    tried = [("conda", "base's"), ("venv", "~/a b"), ("uv", "/p"), ("python", "python3")]
    for (kind, target), nodes in zip(tried, (1, 2, 2, 1), strict=True):
        activation = Activation(("cuda/12", "gcc"), kind, target, (("A", "it's"),), "~/k", ("HF_TOKEN",))  # type: ignore[arg-type]
        for scheduler in ("slurm", "local"):
            made = node.plan(scheduler, Resources(nodes=nodes, gpus_per_node=2, gpu_type="a'800"), activation, 2)  # type: ignore[arg-type]
            (tmp_path / f"{kind}-{scheduler}.sh").write_text(node.script(made), encoding="utf-8")
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([shellcheck, *tmp_path.glob("*.sh")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '#SBATCH --gpus-per-node="a\'800:2"' in (tmp_path / "venv-slurm.sh").read_text(encoding="utf-8")
