"""Engine verl on two nodes: Ray's head and worker start where they should, and the trainer only once both are there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from clusterctl import assets, render
from clusterctl.model import Activation, JobState, Plan, Resources
from tests.slurm.box import Box
from tests.slurm.client import Client

PYTHON = """\
#!/bin/bash
case $2 in
trainers.guard) [[ $3 == end ]] && exit "$5"; echo 1 ;;
trainers)
    printf '{"address": "%s", "node": "%s", "run": "%s", "joined": %s}' \\
        "$RAY_ADDRESS" "$SLURMD_NODENAME" "$3" "$(ls "${0%/*}/joined" | wc -l)" > seen.json
    ;;
esac
"""

RAY = """\
#!/bin/bash
# In the place of Ray's own command: a node joins by a file, and a worker only a while after the head.
cd "${0%/*}/joined" || exit 1
case "$*" in
status)
    [[ -n $(ls) ]] || exit 1
    echo 'Active:'
    for node in *; do echo " 1 node_$node"; done
    printf 'Pending:\\n 1 node_never\\nRecent failures:\\n (no failures)\\n'
    exit
    ;;
*--head*) ;;
*) [[ -e ../broken ]] && { echo 'cannot reach the head'; exec sleep 60; } || sleep 2 ;;
esac
echo "$SLURMD_NODENAME $*" >> ../started
: > "$SLURMD_NODENAME"
exec sleep 60
"""


@pytest.fixture
def client(slurm: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    return Client(slurm, tmp_path / "a'; echo foo", monkeypatch)


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder with stand-ins for python and, beside it, ray."""
    folder = tmp_path / "a b"
    (folder / "joined").mkdir(parents=True)
    for name, text in (("python", PYTHON), ("ray", RAY)):
        (folder / name).write_text(text, encoding="utf-8")
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture
def run(client: Client, programs: Path) -> Callable[[int, JobState], Path]:
    """Submit the script for two nodes, wait for its end, and return the run directory."""

    def submit(seconds: int, ends: JobState) -> Path:
        plan = Plan(
            name="ray",
            scheduler="slurm",
            resources=Resources(nodes=2, partition="a800", mem="10M", time_limit=300),
            activation=Activation(kind="python", target=str(programs / "python")),
            launcher="torchrun",
            zero=False,
            processes_per_node=1,
            version="0",
            ray_start_timeout=seconds,
        )
        submission = client.prepare("")
        (submission.run_dir / "run.yaml").write_text("{}", encoding="utf-8")
        template = assets.shipped_dir("job_templates") / "job.sh.j2"
        (submission.run_dir / "job.sh").write_text(render.render(plan, template), encoding="utf-8")
        ref = client.hand_over(submission)
        assert client.wait_for(ref, ends) is not None
        return submission.run_dir

    return submit


def test_the_trainer_starts_once_head_and_worker_are_there(
    run: Callable[[int, JobState], Path], programs: Path
) -> None:
    run_dir = run(60, JobState.COMPLETED)
    head, worker = (programs / "started").read_text(encoding="utf-8").splitlines()
    seen = json.loads((run_dir / "seen.json").read_text(encoding="utf-8"))
    port = seen["address"].rpartition(":")[2]
    assert (
        head.split()[1:]
        == f"start --head --port={port} --include-dashboard=false --disable-usage-stats --block".split()
    )
    assert worker.split()[1:] == f"start --address={seen['address']} --disable-usage-stats --block".split()
    assert head.split()[0] != worker.split()[0]
    assert seen["node"] == head.split()[0]
    assert seen["joined"] == 2
    assert seen["run"] == str(run_dir / "run.yaml")


def test_a_worker_that_never_joins_ends_the_job_with_a_clear_word(
    run: Callable[[int, JobState], Path], programs: Path
) -> None:
    (programs / "broken").touch()
    run_dir = run(3, JobState.FAILED)
    errors = (run_dir / "logs" / "job.err").read_text(encoding="utf-8")
    assert "clusterctl: Ray has 1 of 2 nodes after 3 s\n" in errors
    assert "clusterctl: logs/ray.log says why; method.verl.ray_start_timeout gives it longer\n" in errors
    assert "cannot reach the head" in (run_dir / "logs" / "ray.log").read_text(encoding="utf-8")
    assert not (run_dir / "seen.json").exists()
