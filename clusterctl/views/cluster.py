"""How a Slurm cluster's GPUs look in a terminal, on 80 columns and without colour too."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from clusterctl.adapters.slurm_words import explain_reason
from clusterctl.cluster import GpuJob, JobUse, count, queues, unseen
from clusterctl.durations import words
from clusterctl.hardware import Node
from clusterctl.views.cells import gib, plain, table


def cluster_view(
    nodes: Sequence[Node], jobs: Sequence[GpuJob] = (), use: Sequence[JobUse] | None = None
) -> RenderableType:
    """The GPUs of a Slurm cluster: by type, by node, why some nodes take no work, and what waits for what.

    With ``use``, also who holds which of them, and what those of the own jobs do.
    """
    with_gpus = [node for node in nodes if node.gpus]
    parts: list[RenderableType] = [_cluster_headline(nodes, with_gpus)]
    if with_gpus:
        parts += [_type_table(with_gpus), "", _node_table(with_gpus)]
    parts += [
        plain(f"{node.name} takes no new jobs: {node.reason or node.state}", "red")
        for node in with_gpus
        if not node.usable
    ]
    if use is not None:
        parts += ["", *_holders(jobs, nodes), *_live(use)]
    if any(job.state.waiting for job in jobs):
        parts += ["", *_waiting(jobs, nodes)]
    return Group(*parts)


def _cluster_headline(nodes: Sequence[Node], with_gpus: Sequence[Node]) -> Text:
    without = len(nodes) - len(with_gpus)
    rest = f", {without} without" if without else ""
    return Text.assemble(("Cluster", "bold"), f": {len(with_gpus)} nodes with GPUs{rest}")


def _type_table(nodes: Sequence[Node]) -> Table:
    """``free`` counts on nodes that take work; what is idle on the others is ``out``."""
    numbers: dict[str, Counter[str]] = {}
    for node in nodes:
        for gpu_type, total, used in _by_type(node):
            counts = numbers.setdefault(gpu_type, Counter())
            counts.update(nodes=1, total=total, used=used)
            counts["free" if node.usable else "out"] += total - used
    columns = ("nodes", "total", "used", "free", "out")
    rows = table("GPU TYPE", *(f"{column.upper()}>" for column in columns))
    for gpu_type, counts in sorted(numbers.items()):
        rows.add_row(plain(gpu_type), *(str(counts[column]) for column in columns))
    return rows


def _node_table(nodes: Sequence[Node]) -> Table:
    rows = table("NODE", "GPU TYPE", "TOTAL>", "USED>", "FREE>", "STATE", "PARTITIONS")
    for node in nodes:
        for gpu_type, total, used in _by_type(node):
            rows.add_row(
                plain(node.name),
                plain(gpu_type),
                str(total),
                str(used),
                str(total - used if node.usable else 0),
                plain(node.state, "" if node.usable else "red"),
                plain(", ".join(sorted(node.partitions))),
            )
    return rows


def _by_type(node: Node) -> list[tuple[str, int, int]]:
    """A node's GPUs as (type, total, used); a type that the site does not name is 'any'."""
    total: Counter[str] = Counter()
    used: Counter[str] = Counter()
    for gres in node.gpus:
        total[gres.gpu_type or "any"] += gres.count
    for gres in node.gpus_used:
        used[gres.gpu_type or "any"] += gres.count
    return [(gpu_type, total[gpu_type], used[gpu_type]) for gpu_type in total]


_MOST_OWN = 10

# --- who waits --------------------------------------------------------------------------------


def _waiting(jobs: Sequence[GpuJob], nodes: Sequence[Node]) -> list[RenderableType]:
    """What waits for what: a table by type and reason, then a line for each own job."""
    waiting = [job for job in jobs if job.state.waiting]
    rows = table("WAIT FOR", "JOBS>", "GPUS>", "YOURS>", "WHY")
    for queue in queues(waiting, nodes):
        why = explain_reason(queue.reason) or "new in the queue"
        rows.add_row(plain(queue.gpu_type), str(queue.jobs), str(queue.gpus), str(queue.own), plain(why))
    total = sum(job.tasks for job in waiting)
    head = Text.assemble(("Waiting", "bold"), f": {total} job{'s' if total > 1 else ''} of all users")
    own = [job for job in waiting if job.own]
    more = [plain(f"and {len(own) - _MOST_OWN} more of yours", "dim")] if len(own) > _MOST_OWN else []
    return [head, rows, *map(_own_waiting, own[:_MOST_OWN]), *more]


def _own_waiting(job: GpuJob) -> Text:
    why = explain_reason(job.reason) or "new in the queue"
    said = f"yours: {_name(job)} wants {count(job.gpus)} in {', '.join(job.partitions)}: {why}"
    if job.expected_start is not None:
        left = job.expected_start - time.time()
        said += f"; Slurm's estimate is that it starts {'in ' + words(left) if left > 60 else 'any moment'}"
    return plain(said)


# --- who computes -----------------------------------------------------------------------------


def _holders(jobs: Sequence[GpuJob], nodes: Sequence[Node]) -> list[RenderableType]:
    """Everybody's running jobs: what Slurm gave them."""
    running = [job for job in jobs if not job.state.waiting]
    rows = table("JOB", "USER", "GPUS", "NODES")
    for job in sorted(running, key=lambda job: (not job.own, job.user)):
        rows.add_row(plain(_name(job)), plain(job.user), plain(count(job.gpus)), plain(job.where))
    parts: list[RenderableType] = [Text.assemble(("Running", "bold"), f": {len(running)} jobs with GPUs")]
    parts += [rows] if running else []
    if any(not job.own for job in running):
        parts.append(
            plain("Of other people's jobs only what Slurm gave them is known, not what they do with it.", "dim")
        )
    if hidden := unseen(running, nodes):
        parts.append(plain(f"{hidden} more GPUs are taken by jobs that Slurm does not show, or whole nodes.", "dim"))
    return parts


def _live(use: Sequence[JobUse]) -> list[RenderableType]:
    """The GPUs of own jobs, as nvidia-smi inside the jobs has just seen them."""
    if not use:
        return [plain("None of the running jobs with GPUs is yours.")]
    rows = table("YOURS", "NODE", "GPU>", "LOAD>", "GIB USED>", "°C>", "W>")
    for one in use:
        for gpu in one.gpus:
            rows.add_row(
                plain(one.run_id or one.job_id),
                plain(one.node),
                str(gpu.index),
                "-" if gpu.utilization is None else f"{gpu.utilization}%",
                f"{gib(gpu.memory_used)}/{gib(gpu.memory_total)}",
                "-" if gpu.temperature is None else str(gpu.temperature),
                "-" if gpu.power_w is None else f"{gpu.power_w:.0f}",
            )
    failed = [plain(f"{one.job_id} on {one.node}: {one.problem}", "yellow") for one in use if one.problem]
    return ["", rows, *failed] if any(one.gpus for one in use) else [*failed]


def _name(job: GpuJob) -> str:
    return f"{job.job_id} {job.run_id}".strip()
