"""``clusterctl doctor`` on a real Slurm with accounting: what it does not allow, and jobs that look at nodes."""

from __future__ import annotations

import getpass
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.doctor import failed, found, make_bare_environment
from tests.project import Answer, Project
from tests.slurm.box import Box, until

PROFILES = {
    "cpu": "partition: cpu",
    "two": "nodes: 2\npartition: scavenge\nlauncher: torchrun\nstrategy: ddp\nprocesses_per_node: 1",
    "long": "partition: debug\ntime: 1:00:00",
    "gpus": "gpu_type: a800\ngpus_per_node: 2\nlauncher: torchrun\nstrategy: ddp\nqos: short\ntime: 2:00:00",
    "wide": "nodes: 3\npartition: a800\nlauncher: torchrun\nstrategy: ddp",
}
COMMON = "cpus_per_task: 1\nmem: 500M\nsignal_lead: 30\ndtype: fp32\nenv: {OMP_NUM_THREADS: 1}\n"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Box]:
    """A cluster of our own, whose nodes and controller go down. QOS short: an hour, one GPU."""
    box = Box(accounting=True)
    try:
        box.up()
        box.command("sacctmgr", "-i", "add", "qos", "short", "maxwall=1:00:00", "maxtres=gres/gpu=1")
        box.command("sacctmgr", "-i", "modify", "user", getpass.getuser(), "set", "qos+=short")
        yield box
    finally:
        box.down()


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment in which nothing can train: it answers at once."""
    return make_bare_environment(tmp_path_factory.mktemp("bare") / "a b'")


@pytest.fixture
def project(cluster: Box, tmp_path: Path) -> Project:
    """A folder with profiles. ``write_site`` adds the site file."""
    folder = tmp_path / "a'; echo foo $(x)"
    (folder / "profiles").mkdir(parents=True)
    for name, text in PROFILES.items():
        (folder / f"profiles/{name}.yaml").write_text(f"{COMMON}{text}\n", encoding="utf-8")
    (folder / "home").mkdir()
    return Project(folder, {**cluster.env, "HOME": str(folder / "home"), "LANG": "C.UTF-8"})


def doctor(project: Project, bare: Path | None, *words: str, site: dict[str, object] | None = None) -> Answer:
    """The answer with a site file of these keys; without ``bare`` by the Python that trains."""
    whole: dict[str, object] = {"scheduler": "slurm", "partitions": {"cpu": "cpu", "a800": "a800"}}
    whole |= {"hugging_face": {"offline": True}}
    if bare:
        whole |= {"environment": {"kind": "venv", "path": str(bare)}}
    (project.folder / "clusterctl.yaml").write_text(yaml.safe_dump({**whole, **(site or {})}), encoding="utf-8")
    return project.cli("doctor", *words, "--json")


def test_two_healthy_nodes_add_up_their_numbers(project: Project) -> None:
    answer = doctor(project, None, "--on", "two")
    assert (answer.code, failed(answer)) == (0, set()), answer.out + answer.err
    job = "job with profile two (on "
    assert "gloo: all-reduce of 2 processes on 2 nodes" in found(answer, "communication", job)["evidence"]
    assert found(answer, "job", job)["evidence"].endswith("looked at 2 nodes")
    assert list((project.folder / "logs").iterdir()) == []


def test_what_the_site_says_wrong_of_slurm(project: Project, bare: Path, cluster: Box) -> None:
    site = {"partitions": {"cpu": "cpu", "a40": "a4O", "gpu": "debug"}, "account": "nobody", "qos": "short"}
    answer = doctor(project, bare, site=site)
    check = found(answer, "partition a4O")
    assert (check["state"], "a40" in check["remedy"], "a800" in check["remedy"]) == ("fail", True, True)
    check = found(answer, "partition debug: time")
    assert (check["state"], "allows 30m" in check["evidence"]) == ("warn", True)
    check = found(answer, "account")
    assert (check["state"], "lab" in check["remedy"]) == ("fail", True)
    assert found(answer, "partition cpu")["state"] == "ok"
    answer = doctor(project, bare, site={"qos": "night"})
    check = found(answer, "QOS")
    assert (check["state"], "normal" in check["remedy"]) == ("fail", True)
    user = cluster.command("sacctmgr", "-nP", "show", "user", getpass.getuser(), "format=defaultaccount").stdout.strip()
    assert found(answer, "account")["evidence"].startswith(f"{user} (yours: ")


def test_a_profile_that_could_never_start(project: Project, bare: Path) -> None:
    check = found(doctor(project, bare, "--on", "long", "--wait", "1"), "partition debug: time")
    assert (check["state"], "profile.time=0-00:30:00" in check["remedy"]) == ("fail", True)
    answer = doctor(project, bare, "--on", "gpus", "--wait", "0:01")
    assert {"QOS: time", "QOS: GPUs"} <= failed(answer)
    assert "allows 1:" in found(answer, "QOS: GPUs")["evidence"]
    answer = doctor(project, bare, "--on", "wide", "--wait", "0:01")
    assert "asks for 3 nodes, the partition gives 2" in found(answer, "partition a800")["evidence"]
    assert answer.code == 1


def test_an_environment_that_the_node_does_not_have(project: Project) -> None:
    answer = doctor(project, Path("/no/such"), "--on", "cpu")
    check = found(answer, "environment", "job")
    assert (check["state"], "there is no environment /no/such on" in check["evidence"]) == ("fail", True)
    assert "python3 -m venv /no/such" in found(answer, "job")["remedy"]
    assert failed(answer) == {"job", "environment"}  # this machine needs no environment of theirs


def test_a_node_without_packages(project: Project, bare: Path) -> None:
    answer = doctor(project, bare, "--on", "cpu")
    assert found(answer, "package torch", "job")["remedy"] == "pip install 'clusterctl[train]'"
    assert found(answer, "job")["state"] == "ok"
    assert found(answer, "write speed", "job")["state"] == "ok"


def test_nodes_that_are_drained_a_job_given_up_and_one_interrupted(project: Project, bare: Path, cluster: Box) -> None:
    cluster.command("scontrol", "update", "NodeName=cpu-1", "State=DRAIN", "Reason=test")
    try:
        answer = doctor(project, bare, "--on", "cpu", "--wait", "0:02")
        check = found(answer, "partition cpu")
        assert (check["state"], "sinfo -R" in check["remedy"]) == ("fail", True)
        check = found(answer, "job")
        assert (check["state"], "--wait" in check["remedy"]) == ("unknown", True)
        until(lambda: not cluster.command("squeue", "-h").stdout, "the job to be cancelled")

        asking = project.start("doctor", "--on", "cpu")
        assert asking.stderr
        said = ""
        while "PENDING" not in said:
            said = asking.stderr.readline()
            assert said, "it ended"
        asking.send_signal(signal.SIGINT)
        _, err = asking.communicate(timeout=30)
        assert (asking.returncode, re.findall(r"job \d+ is cancelled", err) != []) == (130, True), err
        assert not cluster.command("squeue", "-h").stdout
        assert not (project.folder / "logs/.doctor").exists()
    finally:
        cluster.command("scontrol", "update", "NodeName=cpu-1", "State=RESUME")


def test_a_partition_that_is_down(project: Project, bare: Path, cluster: Box) -> None:
    cluster.command("scontrol", "update", "PartitionName=cpu", "State=DOWN")
    try:
        assert "is DOWN" in found(doctor(project, bare), "partition cpu")["evidence"]
    finally:
        cluster.command("scontrol", "update", "PartitionName=cpu", "State=UP")


def test_no_controller_and_no_configuration(project: Project, bare: Path, cluster: Box) -> None:
    lost = Project(project.folder, {**project.env, "SLURM_CONF": "/no/slurm.conf"})
    check = found(doctor(lost, bare), "Slurm")
    assert (check["state"], "/no/slurm.conf" in check["evidence"], check["remedy"]) == (
        "fail",
        True,
        "correct it or unset it",
    )
    cluster.stop_controller()
    try:
        answer = doctor(project, bare, "--on", "cpu")
        check = found(answer, "Slurm")
        assert (check["state"], "is down" in check["evidence"]) == ("fail", True)
        assert found(answer, "job")["state"] == "fail"
        assert answer.code == 1
    finally:
        cluster.start_controller()
