"""``clusterctl init`` on a real cluster: what it writes is enough for ``submit``, and Slurm is asked little."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from clusterctl import yaml_text
from clusterctl.plan.partitions import choose
from tests.project import Project, make_project
from tests.slurm.box import Box
from tests.slurm.client import fake_command


@pytest.fixture
def project(slurm_accounting: Box, tiny_model: Path, tmp_path: Path) -> Project:
    """A recipe and its data. There is no site file."""
    project = make_project(tmp_path / "a'; echo foo", slurm_accounting.env, tiny_model)
    (project.folder / "clusterctl.yaml").unlink()
    return replace(project, env={**project.env, "HF_ENDPOINT": "http://127.0.0.1:9"})


def test_a_run_trains_with_the_site_file_that_init_wrote(project: Project, slurm_accounting: Box) -> None:
    made = project.cli("init", "--yes")
    assert made.code == 0, made.err
    site = yaml_text.read(project.folder / "clusterctl.yaml").values
    assert site["partitions"] == {"a40": "a40", "a800": "a800", "gpu": "a800", "cpu": "cpu"}
    assert site["account"] in ("lab", "root")
    assert "Slurm 22.05.8, cluster box: 4 nodes, 3 with GPUs, 6 partitions" in made.out

    run = project.submit()
    job = slurm_accounting.command("scontrol", "show", "job", run.job_id).stdout
    assert "Partition=cpu" in job
    assert f"Account={site['account']}" in job
    run.wait_for("COMPLETED")
    assert run.attempts[-1]["exit_code"] == 0


def test_gpu_jobs_go_where_the_gpus_are(project: Project, slurm_accounting: Box) -> None:
    assert project.cli("init", "--yes").code == 0
    for profile, partition in (("a800-1", "a800"), ("a40-1", "a40")):
        run = project.submit("--profile", profile)
        job = slurm_accounting.command("scontrol", "show", "job", run.job_id).stdout
        assert f"Partition={partition}" in job
        assert project.cli("cancel", run.run_id).code == 0


def test_slurm_is_asked_five_things(project: Project, tmp_path: Path) -> None:
    commands = tmp_path / "commands"
    commands.mkdir()
    for name in ("sinfo", "squeue", "scontrol", "sacctmgr", "sbatch", "sacct"):
        fake_command(commands, name, f'echo {name} >> "{commands}/calls"\nexec "$REAL" "$@"')
    watched = replace(project, env={**project.env, "PATH": f"{commands}:{project.env['PATH']}"})
    assert watched.cli("init").code == 0
    calls = Counter((commands / "calls").read_text().split())
    # scontrol: is there a cluster where SLURM_CONF is set needs none; ping, config, partitions.
    assert calls == {"sinfo": 1, "scontrol": 3, "sacctmgr": 1}


def test_a_partition_that_keeps_us_out_or_is_slow_to_let_us_in_is_not_taken(project: Project) -> None:
    """Of the box's partitions debug allows half an hour, scavenge can be preempted, urgent preempts others."""
    from clusterctl.adapters import slurm_site

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", project.env["SLURM_CONF"])
        site = slurm_site.slurm_site()
    assert (site.name, site.gpus_per_node) == ("box", True)
    limits = {one.name: (one.tier, one.max_time, one.default) for one in site.partitions}
    assert limits["debug"] == (10, 1800, False)
    assert limits["cpu"] == (10, 7 * 86400, True)
    assert limits["scavenge"][0] == 1

    def taken(*shut: str) -> dict[str, str]:
        partitions = [replace(one, allowed=one.name not in shut) for one in site.partitions]
        return {one.key: one.partition for one in choose(site.nodes, partitions)}

    assert taken("a800")["a800"] == "debug"
    assert taken("a800", "debug")["a800"] in ("urgent", "scavenge")
    assert taken(*limits) == {}


def test_a_controller_that_is_down_takes_no_partition_away(slurm_box: object, tiny_model: Path, tmp_path: Path) -> None:
    box = slurm_box()  # type: ignore[operator]
    project = make_project(tmp_path / "project", box.env, tiny_model)
    project = replace(project, env={**project.env, "HF_HUB_OFFLINE": "1"})
    (project.folder / "clusterctl.yaml").write_text("partitions: {a800: mine}\n", encoding="utf-8")
    box.stop_controller()
    answer = project.cli("init", "--yes")
    assert answer.code == 0, answer.err
    assert "is down: nothing is said of partitions" in " ".join(answer.out.split())
    assert yaml_text.read(project.folder / "clusterctl.yaml").values["partitions"] == {"a800": "mine"}
