"""Who waits for GPUs and who holds them: squeue's lines read, summed up, and seen on 80 columns."""

from __future__ import annotations

import os
import pty
import select
import signal
import termios
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from clusterctl.adapters.slurm_cluster import array_tasks, parse_gpu_jobs
from clusterctl.adapters.slurm_live import parse_use
from clusterctl.adapters.slurm_text import SEPARATOR
from clusterctl.cluster import GpuJob, JobUse, queues, unseen
from clusterctl.hardware import Gpu, Gres, Node
from clusterctl.model import JobState
from clusterctl.views.cluster import cluster_view
from tests.fake_nvml.build import fake_nvml_env
from tests.project import CLUSTERCTL
from tests.unit.test_gpus_view import row, show

WAITS = GpuJob("7", "7", "li", False, JobState.PENDING, ("gpu",), (Gres("a800", 4),), reason="Resources")


def line(**said: str) -> str:
    known = {
        "id": "7", "raw": "7", "state": "PENDING", "user": "li", "partition": "gpu", "nodes": "1", "tasks": "1",
        "job": "N/A", "node": "N/A", "task": "N/A", "start": "N/A", "where": "", "reason": "Resources", "comment": "",
    }  # fmt: skip
    return SEPARATOR.join((known | said).values()) + "\n"


def node(name: str, gpu_type: str | None, used: int = 0, partition: str = "gpu") -> Node:
    return Node(name, "idle", (partition,), (Gres(gpu_type, 4),), (Gres(gpu_type, used),) if used else ())


# --- reading ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "gpus"),
    [
        ({"job": "gres:gpu:a800:6"}, (Gres("a800", 6),)),
        ({"node": "gres:gpu:a40:2", "nodes": "3"}, (Gres("a40", 6),)),
        ({"node": "gres/gpu:a40:2", "nodes": "2-4"}, (Gres("a40", 4),)),
        ({"task": "gres:gpu:1", "tasks": "8"}, (Gres(None, 8),)),
        ({"node": "gres:gpu:1,gres:shard:4"}, (Gres(None, 1),)),
        ({"job": "gres:gpu:a800:2", "id": "7_[0-3,9]"}, (Gres("a800", 10),)),
    ],
)
def test_the_gpus_of_the_whole_job(said: dict[str, str], gpus: tuple[Gres, ...]) -> None:
    [job] = parse_gpu_jobs(line(**said), "me")
    assert job.gpus == gpus


def test_whose_it_is_and_what_it_is() -> None:
    text = line(node="gres:gpu:1", user="me", comment="clusterctl:my-1:abc", start="1795417011", raw="70", id="7_3")
    [job] = parse_gpu_jobs(text + line() + "nonsense\n" + line(partition=f"a{SEPARATOR}b"), "me")
    assert (job.job_id, job.raw_id, job.own, job.run_id, job.expected_start) == ("7_3", "70", True, "my-1", 1795417011)


def test_a_running_job_waits_for_nothing() -> None:
    [job] = parse_gpu_jobs(line(node="gres:gpu:1", state="RUNNING", where="n[1-2]", start="1795417011"), "me")
    assert (job.reason, job.expected_start, job.where) == ("", None, "n[1-2]")


@pytest.mark.parametrize(
    ("job_id", "tasks"),
    [("7", 1), ("7_4", 1), ("7_[0-3]", 4), ("7_[1,5,7-9%2]", 5), ("7_[0-10:5]", 3), ("7_[1-3,...", 3), ("7_[x]", 1)],
)
def test_tasks_of_an_array(job_id: str, tasks: int) -> None:
    assert array_tasks(job_id) == tasks


def test_only_the_cards_of_the_job_are_its() -> None:
    rows = "0, GPU-a, 97, 61440, 81920, 63, 281.4, 300.0, NVIDIA A800, 80GB\n1, GPU-b, 0, [N/A], 1, [N/A], x, y, A40\n"
    assert [gpu.index for gpu in parse_use(f"1\n{rows}")] == [1]
    assert [gpu.index for gpu in parse_use(f"GPU-a\n{rows}")] == [0]
    both = parse_use(f"\n{rows}")
    assert both[0] == Gpu(0, "GPU-a", "NVIDIA A800, 80GB", 80 * 1024**3, 60 * 1024**3, 97, 63, 281.4, 300.0)
    assert (both[1].memory_used, both[1].temperature, both[1].power_w) == (None, None, None)
    assert parse_use("0\nNo devices were found\n") == ()


# --- sums -------------------------------------------------------------------------------------


def test_an_untyped_request_counts_for_the_only_type_of_its_partition() -> None:
    untyped = replace(WAITS, gpus=(Gres(None, 2),))
    nodes = [node("n1", "a800"), node("n2", "a40", partition="small")]
    assert [row.gpu_type for row in queues([untyped], nodes)] == ["a800"]
    assert [row.gpu_type for row in queues([replace(untyped, partitions=("gpu", "small"))], nodes)] == ["any"]
    assert [row.gpu_type for row in queues([untyped], [node("n1", None)])] == ["any"]


def test_nodes_in_a_reason_do_not_part_the_queue() -> None:
    jobs = [replace(WAITS, reason=f"ReqNodeNotAvail, UnavailableNodes:n{n}") for n in range(3)]
    [row] = queues(jobs, [])
    assert (row.jobs, row.gpus) == (3, 12)


def test_gpus_that_no_visible_job_holds() -> None:
    nodes = [node("n1", "a800", used=4), node("n2", "a800", used=2)]
    mine = replace(WAITS, state=JobState.RUNNING)
    assert (unseen([mine], nodes), unseen([], nodes), unseen([mine] * 3, nodes)) == (2, 6, 0)


# --- seen -------------------------------------------------------------------------------------


def test_who_waits_for_what() -> None:
    mine = replace(
        WAITS, job_id="9", own=True, run_id="my-1", reason="Priority", expected_start=int(time.time()) + 7230
    )
    lines = show(cluster_view([node("n1", "a800")], [WAITS, WAITS, mine]))
    assert row(lines, "a800 2") == "a800 2 8 0 waiting for free resources"
    assert row(lines, "a800 1 4 1") == "a800 1 4 1 waiting behind jobs of higher priority"
    text = " ".join(" ".join(lines).split())
    assert "yours: 9 my-1 wants 4 x a800 in gpu: waiting behind jobs of higher priority; Slurm's estimate" in text
    assert "that it starts in 2h 00m" in text


def test_a_long_queue_of_ones_own_is_cut() -> None:
    own = [replace(WAITS, job_id=str(n), own=True) for n in range(25)]
    lines = show(cluster_view([node("n1", "a800")], own))
    assert sum(line.startswith("yours: ") for line in lines) == 10
    assert lines[-1] == "and 15 more of yours"


def test_live_use_only_when_it_was_asked_for() -> None:
    runs = replace(WAITS, state=JobState.RUNNING, where="n1")
    assert not any("Running" in line for line in show(cluster_view([node("n1", "a800", 4)], [runs])))
    failed = JobUse("8", "", "n2", problem="srun did not answer within 10 s")
    used = JobUse("9", "my-1", "n1", (Gpu(2, "GPU-a", "A800", 80 * 1024**3, None, 97),))
    lines = show(cluster_view([node("n1", "a800", 4)], [runs], [used, failed]))
    assert row(lines, "7 li") == "7 li 4 x a800 n1"
    assert row(lines, "my-1") == "my-1 n1 2 97% -/80.0 - -"
    assert "8 on n2: srun did not answer within 10 s" in lines
    assert any("Of other people's jobs only what Slurm gave them" in line for line in lines)


def test_what_others_write_is_shown_as_text() -> None:
    odd = replace(WAITS, user="[red]li\x1b[2J", reason="\x1b]0;x\x07", state=JobState.RUNNING, where="n1")
    text = "\n".join(show(cluster_view([node("n1", "a800")], [odd, replace(odd, state=JobState.PENDING)], [])))
    assert "[red]li?[2J" in text
    assert "\x1b" not in text


# --- watching ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (lambda terminal, _: os.write(terminal, b"xq"), 0),
        (lambda terminal, _: os.write(terminal, b"\x03"), 0),
        (lambda _, pid: os.kill(pid, signal.SIGTERM), 143),
    ],
    ids=["q", "ctrl-c", "sigterm"],
)
def test_watching_ends_and_leaves_the_terminal_as_it_was(
    end: Callable[[int, int], object], code: int, home: dict[str, str], folder: Path, tmp_path: Path
) -> None:
    env = {**home, **fake_nvml_env(tmp_path), "TERM": "xterm"}
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execve(CLUSTERCTL, [str(CLUSTERCTL), "gpus", "--watch"], env)
    before = termios.tcgetattr(terminal)
    seen, ended = b"", False
    while select.select([terminal], [], [], 20)[0]:
        try:
            seen += os.read(terminal, 65536)
        except OSError:
            break
        if b"q ends" in seen and not ended:
            assert not termios.tcgetattr(terminal)[3] & termios.ECHO
            ended = bool(end(terminal, pid) or True)
            after = terminal
    else:
        os.kill(pid, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == code
    assert termios.tcgetattr(after) == before
    assert seen.count(b"\x1b[?1049h") == seen.count(b"\x1b[?1049l") == 1  # the other screen, and back
    assert seen.rindex(b"\x1b[?25h") > seen.rindex(b"\x1b[?25l")  # the cursor shows again
    os.close(terminal)
