"""Profiles that are only a name, on a real Slurm: sbatch takes what they ask for, and the nodes' sizes are in it."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.project import CLUSTERCTL, Answer
from tests.slurm.box import Box

NODES = """\
scheduler: slurm
partitions: {a800: a800, a40: a40, gpu: a800, cpu: cpu}
environment: {kind: python, path: /bin/true}
"""
WHOLE = ("--set", "model.adapter=none")


class Folder:
    """A user's folder with a recipe that names no profile."""

    def __init__(self, folder: Path, box: Box) -> None:
        folder.mkdir()
        (folder / "home").mkdir()
        self.folder, self.env = folder, {**box.env, "HOME": str(folder / "home"), "COLUMNS": "200"}
        (folder / "clusterctl.yaml").write_text(NODES, encoding="utf-8")
        (folder / "data.csv").write_text("prompt,response\nWho?,Player 3\n", encoding="utf-8")
        (folder / "mine.yaml").write_text(
            "stage: sft\nmodel: {model_name_or_path: Qwen/Qwen2.5-1.5B-Instruct}\n"
            "data: {train_files: data.csv}\noptim: {train_batch_size: 16}\n",
            encoding="utf-8",
        )

    def cli(self, *words: str) -> Answer:
        done = subprocess.run(
            [CLUSTERCTL, *words], cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=120
        )
        return Answer(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def user(slurm: Box, tmp_path: Path) -> Folder:
    return Folder(tmp_path / "a'; echo foo", slurm)


@pytest.mark.parametrize(
    ("profile", "gres", "cpus", "partition"),
    [
        ("a40-2", "gpu:a40:2", 24, "a40"),
        ("a800-4-zero3", "gpu:a800:4", 64, "a800"),
        ("a800-2x2-fsdp", "gpu:a800:2", 32, "a800"),
        ("a40-1-zero2-offload", "gpu:a40:1", 12, "a40"),
    ],
)
def test_sbatch_takes_what_a_name_asks_for(
    user: Folder, slurm: Box, profile: str, gres: str, cpus: int, partition: str
) -> None:
    answer = user.cli("submit", "mine.yaml", "--profile", profile, "--json", *WHOLE)
    assert answer.code == 0, answer.err
    run = answer.json["data"]["runs"][0]
    record = json.loads((user.folder / "logs" / run["run_id"] / "record.json").read_text(encoding="utf-8"))
    shown = slurm.command("scontrol", "show", "job", record["jobs"][-1]["job_id"]).stdout
    user.cli("cancel", run["run_id"])
    assert re.search(rf"TresPerNode=gres.{gres}\n", shown), shown
    assert f"Partition={partition} " in shown and f"CPUs/Task={cpus} " in shown, shown
    assert f"MinMemoryNode={record['resources']['mem']}" in shown, shown


def test_what_no_node_has_is_refused_before_anything_is_queued(user: Folder) -> None:
    for words, said in (
        (
            ["--profile", "a800-8"],
            "8 a800 on one node are more than there are: a40: 1 node with 4; a800: 2 nodes with 4",
        ),
        (["--profile", "a800-3x4-zero3"], "4 a800 on each of 3 nodes"),
        (["--gpu-type", "h100"], "no H100 is to be had here"),
        (["--gpus", "16"], "16 GPUs together are not to be had"),
    ):
        answer = user.cli("submit", "mine.yaml", *words)
        assert (answer.code, said in answer.err) == (4, True), answer.err
    answer = user.cli("submit", "mine.yaml", "--gpu-ids", "0,1")
    assert (answer.code, "Slurm chooses the cards" in answer.err) == (2, True), answer.err
    assert not (user.folder / "logs").exists()


def test_an_open_profile_gets_the_type_that_is_large_enough(user: Folder) -> None:
    """sbatch cannot ask for memory of a GPU."""
    small = user.cli("submit", "mine.yaml", "--profile", "gpu-1", "--dry-run")
    assert '--gpus-per-node="1"' in small.out, small.err
    large = ("--set", "model.model_name_or_path=Qwen/Qwen2.5-3B-Instruct")
    settled = user.cli("submit", "mine.yaml", "--profile", "gpu-1", "--dry-run", *WHOLE, *large)
    assert '--gpus-per-node="a800:1"' in settled.out and '--partition="a800"' in settled.out, settled
