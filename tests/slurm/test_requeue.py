"""What a job does by itself after a failure, on a real Slurm: the trainer is a stand-in that fails as it is told."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.project import Project, Run
from tests.slurm.box import Box, until
from tests.slurm.stand_in import make_stand_in_project

_FAILING = """\
#!/bin/bash
# In the place of the Python that trains: attempt N ends as line N of `story` says, later ones end well.
[[ $1 == -m && $2 == trainers ]] || exec {python} "$@"
until [[ -e story ]]; do sleep 0.1; done
words=$(sed -n "${{CLUSTERCTL_ATTEMPT}}p" story)
printf '%s %s\\n' "$CLUSTERCTL_ATTEMPT" "$SLURMD_NODENAME" >> nodes
[[ -z $words ]] || {{ printf '%s\\n' "$words" >&2; exit 1; }}
printf '{{"schema":1,"attempt":%s,"phase":"finished","step":12,"max_steps":12}}' "$CLUSTERCTL_ATTEMPT" > progress.json
"""

ECC = "torch.AcceleratorError: CUDA error: uncorrectable ECC error encountered"
PORT = "RuntimeError: The server socket has failed to listen. port: 29500, code: -98, name: EADDRINUSE"
OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."


@pytest.fixture
def project(slurm: Box, tmp_path: Path) -> Project:
    project = make_stand_in_project(tmp_path / "a'; echo foo", slurm)
    python = tmp_path / "stand-in"
    python.write_text(_FAILING.format(python=shlex.quote(sys.executable)), encoding="utf-8")
    return project


def told(project: Project, *story: str, partition: str = "a800", sets: Sequence[str] = ()) -> Run:
    """Submit a run that fails with these lines, one an attempt, and then ends well."""
    asked = (f"profile.partition={partition}", *sets)
    run = project.submit(*(word for item in asked for word in ("--set", item)))
    part = run.run_dir / "part"
    part.write_text("".join(f"{line}\n" for line in story), encoding="utf-8")
    part.rename(run.run_dir / "story")
    return run


def ends(run: Run) -> list[tuple[str, str, str | None]]:
    return [(line["outcome"], line["decision"], line.get("cause")) for line in run.attempts if line["event"] == "end"]


def test_only_what_may_pass_is_tried_again(project: Project, slurm: Box) -> None:
    picky = told(project, partition="scavenge")
    picky.wait_for("COMPLETED")
    (picky.run_dir / "story").write_text(f"\n{ECC}\n", encoding="utf-8")
    by_hand = slurm.command("sbatch", "--parsable", "--exclude=cpu-1", "job.sh", cwd=picky.run_dir).stdout.strip()

    sick, once, hopeless = told(project, ECC), told(project, PORT), told(project, OOM)
    # Of its type there is one node, and the others of the partition are no help.
    alone = told(project, ECC, partition="scavenge", sets=("profile.gpus_per_node=1", "profile.gpu_type=a40"))
    for run in (sick, once, alone):
        run.wait_for("COMPLETED")
    assert [line.split()[1] for line in (alone.run_dir / "nodes").read_text(encoding="utf-8").splitlines()] == (
        ["gpu-a40-1"] * 2
    )
    # Nodes that somebody has left out stay left out.
    slurm.wait_for(by_hand, "COMPLETED")
    left_out = slurm.command("squeue", "-h", "-t", "all", "-j", by_hand, "-o", "%x").stdout.strip()
    [bad] = (picky.run_dir / "bad_nodes").read_text(encoding="utf-8").split()
    expanded = slurm.command("scontrol", "show", "hostnames", left_out).stdout.split()
    assert bad != "cpu-1" and sorted(expanded) == sorted(["cpu-1", bad])
    until(lambda: project.state(hopeless.run_id)["state"] == "FAILED", "the hopeless one to fail")

    # The node with the sick card is left out by name.
    assert ends(sick)[0] == ("failed", "requeue", "gpu_ecc")
    (_, first), (_, second) = [
        line.split() for line in (sick.run_dir / "nodes").read_text(encoding="utf-8").splitlines()
    ]
    assert first != second and (sick.run_dir / "bad_nodes").read_text(encoding="utf-8").split() == [first]
    assert f"not on {first}" in next(line for line in sick.attempts if line["event"] == "end")["why"]

    assert ends(once) == [("failed", "requeue", "port_in_use"), ("finished", "done", None)]
    assert ends(hopeless) == [("failed", "stop", "cuda_out_of_memory")]

    answer = project.cli("diagnose", hopeless.run_id, "--json")
    assert json.loads(answer.out)["data"]["cause"] == "cuda_out_of_memory"
    said = project.cli("diagnose", sick.run_id).out
    assert said.startswith("run ") and "nothing wrong" in said
    assert "a GPU ran out of memory" in project.state(hopeless.run_id)["why"]
