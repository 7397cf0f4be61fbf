"""What is known of a run before it is submitted: its batch, whether it fits, how long it takes. Estimates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clusterctl.compose import Composed
from clusterctl.model import SchedulerName
from clusterctl.plan import duration, fit
from clusterctl.plan.batch import Batch, arithmetic
from clusterctl.plan.estimates import Duration, Memory, Point, Verdict
from clusterctl.plan.memory import measured as with_peak
from clusterctl.runs import measured
from clusterctl.runs.inventory import memory_here
from clusterctl.runs.rows import Rows

_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True)
class Judged:
    """``about`` says that the steps behind ``duration`` are guessed, since only the run counts its rows.

    ``tested``: a test or a run of this very configuration on such a card has ended well.
    """

    batch: Batch
    memory: Memory | None
    verdict: Verdict
    duration: Duration | None
    rows: Rows
    about: bool = False
    tested: bool = False


def judge(
    composed: Composed, rows: Rows, points: Sequence[Point], fingerprint: str, scheduler: SchedulerName
) -> Judged:
    """Judge one configuration on its card. A measurement of the same one among ``points`` beats the formulas."""
    config, card = composed.config, composed.card
    batch = arithmetic(config, rows.count, rows.unit)
    guessed = batch if batch.steps is not None else arithmetic(config, rows.about, rows.unit)
    same = measured.same(points, fingerprint, gpu_word(composed)) if fingerprint else None
    point = same or _alike(composed, points)
    memory = _with_peak(composed.memory, same)
    took = duration.estimate(
        config, composed.shape, guessed, card, row_length=rows.length, point=point, eval_rows=rows.held_out
    )
    about = guessed is not batch and took is not None
    verdict = _verdict(composed, memory, scheduler)
    return Judged(batch, memory, verdict, took, rows, about, tested=same is not None)


def fits(composed: Composed, points: Sequence[Point], fingerprint: str, scheduler: SchedulerName) -> Verdict:
    """Whether it fits alone, for which no rows are read."""
    same = measured.same(points, fingerprint, gpu_word(composed)) if fingerprint else None
    return _verdict(composed, _with_peak(composed.memory, same), scheduler)


def _with_peak(memory: Memory | None, same: Point | None) -> Memory | None:
    if memory is None or same is None or not same.peak_memory:
        return memory
    return with_peak(memory, same.peak_memory, same.run_id)


def _alike(composed: Composed, points: Sequence[Point]) -> Point | None:
    """A measurement of the same kind, for its efficiency."""
    config, shape = composed.config, composed.shape
    if shape is None:
        return None
    kind = {"stage": config.stage, "model_type": shape.model_type, "adapter": config.model.adapter}
    return measured.alike(points, gpu=gpu_word(composed), **kind)


def _verdict(composed: Composed, memory: Memory | None, scheduler: SchedulerName) -> Verdict:
    """Whether it fits the card, and the memory that the job gets of its node."""
    profile = composed.profile
    host = _host(composed, scheduler)
    if not profile.gpus_per_node:
        return fit.on_host(memory, host)
    name = card_name(composed)
    processes = profile.nodes * profile.processes
    return fit.verdict(memory, composed.usable, name, host_usable=host, processes=processes)


def _host(composed: Composed, scheduler: SchedulerName) -> int | None:
    """Bytes of a node's memory that the job gets. Nobody bounds it without Slurm: there it is what this machine has."""
    profile, offer = composed.profile, composed.offer
    has = offer.host_memory if offer else None
    if scheduler == "slurm":
        # 0 is Slurm's word for all that the node has.
        return (size(profile.mem) or has) if profile.mem else None
    return has if profile.gpus_per_node else memory_here()


def card_name(composed: Composed) -> str:
    """What people call the card: A40."""
    return gpu_word(composed).upper() if composed.card or composed.offer else "GPU of any type"


def gpu_word(composed: Composed) -> str:
    """The type of its card, in the planner's word; 'cpu' without one."""
    known, offer = composed.card, composed.offer
    if known:
        return known.name
    return offer.gpu_type if offer else composed.profile.gpu_type or "cpu"


def size(mem: str) -> int:
    """Bytes of Slurm's way to write memory: a bare number is MiB."""
    return int(mem[:-1]) * _UNITS[mem[-1]] if mem[-1] in _UNITS else int(mem) * _UNITS["M"]
