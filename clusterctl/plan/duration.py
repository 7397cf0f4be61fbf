"""How long a run takes once it has its GPUs: loading, training, evaluations, checkpoints. Pure, and an estimate.

A measured step beats every formula; a measured efficiency beats the default one (``plan/work.py``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clusterctl.models.shape import Shape
from clusterctl.plan import pace, work
from clusterctl.plan.batch import ROLLOUTS, Batch
from clusterctl.plan.estimates import Duration, Point, Span
from trainers.hardware import GpuType

if TYPE_CHECKING:
    from trainers.config import RunConfig

STARTING = 45.0
"""Seconds until Python has its libraries and its GPU: a default."""

READING = 1e9
"""Bytes/s at which weights come from the disk and checkpoints go there: a default, of a shared file system."""


def estimate(
    config: RunConfig,
    shape: Shape | None,
    batch: Batch,
    card: GpuType | None,
    *,
    row_length: float,
    point: Point | None = None,
    eval_rows: int | None = None,
) -> Duration | None:
    """The duration of a run, or None where its steps or its speed are not known.

    ``row_length`` is the mean length of a sequence in tokens: of rollouts prompt and answer together, of pairs one
    of the two. ``point`` is a measurement of this very configuration, or, without ``seconds_per_step``, of a like
    one whose efficiency counts (``runs.measured``). A measured step needs neither ``shape`` nor ``card``.
    """
    if batch.steps is None:
        return None
    token = work.of_token(config, shape, row_length) if shape else None
    found = _step(config, shape, batch, card, row_length, point, token)
    if found is None:
        return None
    seconds, efficiency, basis = found
    measured = point.run_id if point and (point.seconds_per_step or point.mfu) else None
    spans = (
        _starting(config, shape),
        Span("training", pace.training(batch.steps, seconds), f"{batch.steps} steps x {seconds:.3g} s: {basis}"),
        *_references(config, batch, seconds, row_length, token),
        *_evaluations(config, batch, seconds, row_length, eval_rows, token),
        *_checkpoints(config, token, batch.steps),
    )
    return Duration(spans, efficiency, measured, seconds)


def _step(
    config: RunConfig,
    shape: Shape | None,
    batch: Batch,
    card: GpuType | None,
    row_length: float,
    point: Point | None,
    token: work.Token | None,
) -> tuple[float, float | None, str] | None:
    """Seconds of a step, the share of the peak behind it, and what it rests on."""
    if point and point.seconds_per_step:
        return point.seconds_per_step, point.mfu, f"measured in {point.run_id}"
    speed = work.peak(config, card) if card else None
    if shape is None or card is None or token is None or not speed:
        return None
    flops = batch.effective * row_length * work.sequences(config) * token.trained
    cards = speed * batch.processes
    if point and point.mfu:
        return flops / (cards * point.mfu), point.mfu, f"{point.mfu:.0%} of the peak as in {point.run_id}"
    step = work.step(config, shape, batch, card, token, row_length=row_length)
    if step is None:
        return None
    parts = {"computing": step.computing, "sending": step.sending, "generating": step.generating}
    parts["updating"] = step.updating
    words = ", ".join(f"{name} {seconds:.2g} s" for name, seconds in parts.items() if seconds >= step.total / 100)
    return step.total, flops / (cards * step.total), f"{words} (default: {work.EFFICIENCY:.0%} of the peak)"


def _starting(config: RunConfig, shape: Shape | None) -> Span:
    if shape is None:
        return Span("starting", STARTING, f"libraries {STARTING:.0f} s (default); the model's size is not known")
    second = 2 if config.stage in ("dpo", "kto") and config.model.adapter == "none" else 1
    size = 2 * shape.total * second
    words = f"libraries {STARTING:.0f} s, {size / 1e9:.3g} GB of weights at {READING / 1e9:g} GB/s (defaults)"
    return Span("starting", STARTING + size / READING, words)


def _evaluations(
    config: RunConfig, batch: Batch, step: float, row_length: float, eval_rows: int | None, token: work.Token | None
) -> tuple[Span, ...]:
    """One at the start, one at the end, and those in between. A held-out row costs a forward pass."""
    if not config.data.holds_out or batch.steps is None:
        return ()
    rows = eval_rows if eval_rows is not None else _held_out(config, batch)
    if rows is None:
        return (Span("evaluations", 0.0, "not counted: the held-out rows are not known before the run"),)
    if config.data.max_eval_samples:
        rows = min(rows, config.data.max_eval_samples)
    every = config.eval.eval_steps
    count = 1 + (-(-batch.steps // every) if every else 1)
    seconds = rows * _reading(config, batch, step, row_length, token)
    return (Span("evaluations", count * seconds, f"{count} x {rows} held-out rows, {seconds:.3g} s each"),)


def _reading(config: RunConfig, batch: Batch, step: float, row_length: float, token: work.Token | None) -> float:
    """Seconds to read a row only, from those of a step."""
    share = 1.0 / (2 if config.model.adapter == "lora" else 3)
    if token:
        share = token.read * row_length * work.sequences(config) / work.row_flops(config, token, row_length)
    return step * share / max(batch.effective, 1)


def _references(
    config: RunConfig, batch: Batch, step: float, row_length: float, token: work.Token | None
) -> tuple[Span, ...]:
    """All pairs through the reference, where that is done before training."""
    if not getattr(config.method, "precompute_ref_log_probs", False) or not batch.rows:
        return ()
    seconds = batch.rows * _reading(config, batch, step, row_length, token)
    return (Span("reference scores", seconds, f"{batch.rows} pairs, read once"),)


def _held_out(config: RunConfig, batch: Batch) -> int | None:
    split = config.data.validation_split
    return round(batch.rows * split / (1 - split)) if split and batch.rows and config.stage not in ROLLOUTS else None


def _checkpoints(config: RunConfig, token: work.Token | None, steps: int) -> tuple[Span, ...]:
    """What learns with its two moments, at every ``save_steps``, and the result."""
    if token is None:
        return ()
    count = steps // config.output.save_steps + (steps % config.output.save_steps > 0)
    size = 12 * token.learning
    seconds = count * size / READING
    if seconds < 1:
        return ()
    return (Span("checkpoints", seconds, f"{count} x {size / 1e9:.3g} GB at {READING / 1e9:g} GB/s (default)"),)
