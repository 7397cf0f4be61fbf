"""When Slurm would start a job: its own estimate, asked once a minute for each request, and never taken for granted."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from clusterctl.adapters.slurm_cache import SlurmCache
from clusterctl.adapters.slurm_starts import options
from clusterctl.model import Activation, Plan, Resources
from clusterctl.profiles import what_there_is
from clusterctl.render import render
from clusterctl.runs.inventory import of_nodes
from clusterctl.schema import Site
from tests.slurm.box import Box
from tests.slurm.client import Client, count_calls

A40 = Resources(gpus_per_node=1, gpu_type="a40", partition="a40", time_limit=3600, mem="1G")
A800 = Resources(gpus_per_node=4, gpu_type="a800", partition="a800", time_limit=3600, mem="1G")
TEMPLATES = Path(__file__).parents[2] / "job_templates"


def test_the_options_are_those_of_the_script() -> None:
    wanted = Resources(
        nodes=2, gpus_per_node=4, gpu_type="a800", cpus_per_task=8, mem="64G", partition="p", account="a", qos="q",
        constraint="c", time_limit=90_061, gpu_request="gres",
    )  # fmt: skip
    plan = Plan("n", "slurm", wanted, Activation(), "python", zero=False, processes_per_node=1, version="0")
    script = render(plan, TEMPLATES / "job.sh.j2")
    lines = [line.replace('"', "") for line in script.splitlines()]
    said = {line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH")}
    others = ("--job-name", "--signal", "--requeue", "--open-mode", "--output", "--error")
    assert set(options(wanted)) == {option for option in said if not option.startswith(others)}


def test_free_busy_and_impossible(slurm_box: Callable[..., Box], enter: Callable[[Box], Client]) -> None:
    box = slurm_box()
    client = enter(box)
    for _ in range(2):
        job = box.submit("sleep 1000", "-p", "a800", "--gpus-per-node=a800:4", "--time=5:00:00", cwd=box.folder)
        box.wait_for(job, "RUNNING")
    free, busy = client.slurm.test_start(A40), client.slurm.test_start(A800)
    assert free.at is not None and abs(free.at - time.time()) < 60
    assert busy.at is not None and 4.9 * 3600 < busy.at - time.time() < 5.1 * 3600
    nowhere = client.slurm.test_start(Resources(gpus_per_node=9, gpu_type="a40", partition="a40"))
    assert (nowhere.at, nowhere.refused) == (None, True)
    assert nowhere.why == "Requested node configuration is not available"
    assert re.search("nvalid partition", client.slurm.test_start(Resources(partition="nope")).why)


def test_the_inventory_of_a_cluster(slurm_box: Callable[..., Box], enter: Callable[[Box], Client]) -> None:
    box = slurm_box()
    client = enter(box)
    box.wait_for(box.submit("sleep 1000", "-p", "a800", "--gpus-per-node=a800:3", cwd=box.folder), "RUNNING")
    box.command("scontrol", "update", "nodename=gpu-a40-1", "state=drain", "reason=fan | broken")
    nodes = client.slurm.nodes()
    found = of_nodes(nodes, Site(partitions={"a800": "a800", "a40": "debug"}))
    [a40], [a800] = found.of_type("a40"), found.of_type("a800")
    assert (a800.nodes, a800.gpus_per_node, a800.total, a800.free, a800.out) == (2, 4, 8, 5, 0)
    assert (a800.partition, a800.cpus_per_node, a800.host_memory) == ("a800", 64, 1_000_000 * 2**20)
    assert (a800.max_time, a40.max_time) == (7 * 86400, 1800)
    assert a800.usable and a40.usable and a800.usable > a40.usable
    assert (a40.gpus_per_node, a40.free, a40.out) == (0, 0, 4)
    assert a40.why_out == "gpu-a40-1 is drained (fan | broken)"
    wrong = of_nodes(nodes, Site(partitions={"a800": "nope", "a40": "a40"}))
    assert [offer.gpu_type for offer in wrong.offers] == ["a40"]
    said = "a800 stand in a800, debug, scavenge, urgent, and `partitions` of the site file sends them to nope"
    assert wrong.misled == (said,) and what_there_is(wrong).endswith(said)
    # Several partitions have them, the default one has none: which is meant only the site can say.
    assert {offer.partition for offer in of_nodes(nodes, Site()).offers} == {None}
    box.command("scontrol", "update", "partitionname=a800", "state=down")
    [closed] = of_nodes(client.slurm.nodes(), Site(partitions={"a800": "a800"})).of_type("a800")
    assert (closed.gpus_per_node, closed.out, closed.why_out) == (0, 8, "partition a800 is closed")


def test_one_question_a_minute_for_all_terminals(client: Client, commands: Path) -> None:
    log = count_calls(commands)
    for _ in range(3):
        for terminal in (client.slurm, client.again()):
            assert terminal.test_start(A40).at is not None
    terminal.test_start(A800)
    assert log.read_text().split() == ["sbatch", "sbatch"]
    # A job of ours changes the queue: what was said before counts no more.
    SlurmCache().note_change()
    terminal.test_start(A40)
    assert log.read_text().split() == ["sbatch"] * 3


@pytest.mark.parametrize("kept", ["", "[]", "{", '{"a": 1}', '{"x": {"asked_at": "soon"}}', '{"x": {}}'])
def test_a_torn_file_is_no_answer(client: Client, kept: str) -> None:
    SlurmCache().save_starts(kept)
    assert client.slurm.test_start(A40).at is not None


def test_an_answer_of_yesterday_is_none(client: Client) -> None:
    old = {"at": 1.0, "why": "", "refused": False, "asked_at": time.time() - 61}
    SlurmCache().save_starts(json.dumps({json.dumps(options(A40)): old}))
    assert (client.slurm.test_start(A40).at or 0) > 1.0


def test_a_silent_controller_makes_it_unknown_once(
    slurm_box: Callable[..., Box], enter: Callable[[Box], Client]
) -> None:
    box = slurm_box()
    client = enter(box)
    box.hang_controller()
    began = time.monotonic()
    starts = [client.slurm.test_start(one) for one in (A40, A800, Resources())]
    assert time.monotonic() - began < 8, "one wait serves all"
    assert all(start.at is None and not start.refused for start in starts)
    assert "does not answer" in starts[2].why
    box.resume_controller()
