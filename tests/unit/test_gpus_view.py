"""What ``clusterctl gpus`` shows, read off a terminal of 80 columns without colour."""

from __future__ import annotations

import io

from rich.console import Console, RenderableType

from clusterctl.commands.gpus import GpusResult
from clusterctl.hardware import Gpu, GpuProcess, Gres, Machine, Node
from clusterctl.views.cluster import cluster_view
from clusterctl.views.gpus import gpus_view, machine_view

GIB = 1024**3


def show(view: RenderableType, width: int = 80) -> list[str]:
    """The lines of the view on such a terminal. None is longer than the terminal is wide."""
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(view)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= width
    return [line.rstrip() for line in lines]


def row(lines: list[str], start: str) -> str:
    """The one line that starts with these words, its words one space apart."""
    [line] = [line for line in (" ".join(line.split()) for line in lines) if f"{line} ".startswith(f"{start} ")]
    return line


def gpu(index: int, **fields: object) -> Gpu:
    known: dict[str, object] = {
        "uuid": f"GPU-{index:08x}-0000-4000-8000-000000000000",
        "name": "NVIDIA A800 80GB PCIe",
        "memory_total": 80 * GIB,
        "memory_used": 0,
        "utilization": 0,
        "temperature": 34,
        "power_w": 45.2,
        "power_limit_w": 300.0,
    }
    return Gpu(index=index, **(known | fields))  # type: ignore[arg-type]


def machine(*gpus: Gpu, hidden: int = 0) -> Machine:
    return Machine("server", "550.163.01", "12.4", gpus, hidden)


def node(name: str, state: str = "idle", *, gpus: str, used: str = "", reason: str = "") -> Node:
    """Its GPUs in a few words: ``a800=4 a40=2``, or ``=2`` for GPUs of a type that is not named."""

    def gres(text: str) -> tuple[Gres, ...]:
        pairs = (word.split("=") for word in text.split())
        return tuple(Gres(gpu_type or None, int(count)) for gpu_type, count in pairs)

    return Node(name, state, ("gpu", "debug"), gres(gpus), gres(used), reason)


# --- this machine -----------------------------------------------------------------------------


def test_a_row_for_each_gpu() -> None:
    busy = gpu(0, memory_used=60 * GIB, utilization=97, temperature=63, power_w=281.4, processes=(GpuProcess(7, 1),))
    lines = show(machine_view(machine(busy, gpu(1))))
    assert lines[0] == "server (driver 550.163.01, CUDA 12.4): 1 free, 1 in use"
    assert row(lines, "0 GPU-00000000") == "0 GPU-00000000 A800 80GB PCIe 60.0/80.0 97% 63 281/300 in use"
    assert row(lines, "1") == "1 GPU-00000001 A800 80GB PCIe 0.0/80.0 0% 34 45/300 free"


def test_memory_taken_by_a_process_that_cannot_be_seen_is_in_use() -> None:
    assert row(show(machine_view(machine(gpu(0, memory_used=30 * GIB)))), "0").endswith(" in use")


def test_what_the_driver_does_not_tell_is_a_dash() -> None:
    lines = show(machine_view(Machine("server", None, None, (Gpu(0, None, None),))))
    assert lines[0] == "server (driver unknown): 1 free"
    assert row(lines, "0") == "0 - - - - - - free"


def test_a_machine_without_gpus_says_so() -> None:
    assert show(machine_view(machine())) == ["server (driver 550.163.01, CUDA 12.4): no GPU"]


def test_an_unusable_gpu_is_marked_and_explained() -> None:
    lines = show(machine_view(machine(gpu(0), gpu(3, problem="lost"), gpu(4, problem="lost"))))
    assert lines[0].endswith("1 free, 2 unusable")
    assert row(lines, "3").endswith(" unusable")
    assert lines[-1] == "unusable: GPUs 3, 4: lost"


def test_warnings_are_said_once_for_all_gpus_that_have_them() -> None:
    lines = show(machine_view(machine(*(gpu(i, warnings=("persistence mode is off",)) for i in range(3)))))
    assert lines[-1] == "warning: GPUs 0, 1, 2: persistence mode is off"
    assert row(lines, "2").endswith(" free")


def test_hidden_gpus_are_counted() -> None:
    assert show(machine_view(machine(gpu(0), hidden=6)))[-1].startswith("not shown: 6 ")


def test_processes_with_owner_memory_and_as_much_of_the_command_as_fits() -> None:
    long = "python train.py " + "--flag " * 40
    processes = (GpuProcess(4242, 61 * GIB, "li", long), GpuProcess(4243, None))
    lines = show(machine_view(machine(gpu(2, processes=processes))))
    assert row(lines, "2 4242").startswith("2 4242 li 61.0 python train.py --flag --flag")
    assert lines[-2].endswith("…")
    assert row(lines, "2 4243") == "2 4243 - - -"


def test_processes_of_a_split_card_are_listed_once() -> None:
    process = (GpuProcess(4242, GIB, "li", "python"),)
    parent = gpu(0, mig=True, utilization=None, processes=process)
    instance = gpu(0, uuid="MIG-b0000000-0000", name="NVIDIA A800 80GB PCIe MIG 3g.40gb", processes=process)
    lines = show(machine_view(machine(parent, instance)))
    assert lines[0].endswith("1 in use, 1 split by MIG")
    assert row(lines, "0 GPU-00000000").endswith(" split by MIG")
    assert row(lines, "0 4242") == "0 4242 li 1.0 python"


def test_text_of_other_people_is_shown_as_text() -> None:
    process = GpuProcess(1, 1, "[red]li[/red]", "a\x1b[31mb\nc")
    lines = show(machine_view(machine(gpu(0, processes=(process,)))))
    assert row(lines, "0 1") == "0 1 [red]li[/red] 0.0 a?[31mb?c"


# --- the cluster ------------------------------------------------------------------------------


def test_the_cluster_by_type_and_by_node() -> None:
    nodes = (
        node("n1", "mixed", gpus="a800=4", used="a800=3"),
        node("n2", "idle", gpus="a800=2 a40=4", used="a40=1"),
        node("n3", "idle", gpus=""),
    )
    lines = show(cluster_view(nodes))
    assert lines[0] == "Cluster: 2 nodes with GPUs, 1 without"
    assert row(lines, "GPU TYPE") == "GPU TYPE NODES TOTAL USED FREE OUT"
    assert row(lines, "a800") == "a800 2 6 3 3 0"
    assert row(lines, "a40") == "a40 1 4 1 3 0"
    assert row(lines, "n1") == "n1 a800 4 3 1 mixed debug, gpu"
    assert row(lines, "n2 a40") == "n2 a40 4 1 3 idle debug, gpu"
    assert not any(line.startswith("n3") for line in lines)


def test_idle_gpus_of_a_node_that_takes_no_work_are_out_not_free() -> None:
    nodes = (
        node("n1", "draining", gpus="a40=4", used="a40=1", reason="bad [bold]riser[/bold]\x1b[2J"),
        node("n2", "down*", gpus="a40=2"),
    )
    lines = show(cluster_view(nodes))
    assert row(lines, "a40") == "a40 2 6 1 0 5"
    assert row(lines, "n1 a40") == "n1 a40 4 1 0 draining debug, gpu"
    assert lines[-2] == "n1 takes no new jobs: bad [bold]riser[/bold]?[2J"
    assert lines[-1] == "n2 takes no new jobs: down*"


def test_gpus_whose_type_the_site_does_not_name() -> None:
    assert row(show(cluster_view((node("n1", gpus="=8", used="=5"),))), "any") == "any 1 8 5 3 0"


def test_a_cluster_without_gpus() -> None:
    assert show(cluster_view((node("n1", gpus=""),))) == ["Cluster: 0 nodes with GPUs, 1 without"]


def test_a_broken_node_of_the_cpu_partition_is_not_our_business() -> None:
    assert show(cluster_view((node("n1", "down", gpus=""),))) == ["Cluster: 0 nodes with GPUs, 1 without"]


# --- both halves ------------------------------------------------------------------------------


def test_login_node() -> None:
    nodes = (node("n1", gpus="a40=4"),)
    lines = show(gpus_view(GpusResult(None, "no NVIDIA driver is installed here", nodes, None)))
    assert lines[0] == "This machine: no NVIDIA driver is installed here"
    assert row(lines, "n1") == "n1 a40 4 0 4 idle debug, gpu"


def test_gpu_server_without_slurm() -> None:
    lines = show(gpus_view(GpusResult(machine(gpu(0)), None, None, None)))
    assert not any("luster" in line for line in lines)


def test_slurm_that_does_not_answer() -> None:
    lines = show(gpus_view(GpusResult(machine(gpu(0)), None, None, "sinfo did not answer within 10 s")))
    assert row(lines, "0").endswith(" free")
    assert lines[-1] == "Cluster: sinfo did not answer within 10 s"
