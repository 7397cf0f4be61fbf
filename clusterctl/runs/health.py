"""Whether a run learns, judged by its own metrics: a pure function over lines of ``metrics.jsonl``.

Few false alarms matter more than early ones: a trend needs LINES lines and STEPS steps, and to call a loss flat the
noise must be too small to hide a fall. What is expected of each stage is that of docs/runs.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite, sqrt
from statistics import fmean, median
from typing import Any

from clusterctl.plan.batch import ROLLOUTS
from clusterctl.status import Finding, Health, Level

PREFERENCES = ("dpo", "kto", "reward")

LINES, STEPS = 10, 30
"""Of training, before a trend is told."""
BLAME = 0.2
"""Share of a run, with its warm-up, before it is blamed for having no trend; and then of twice LINES, thrice STEPS."""

GROWN = 0.01
"""Of a margin that starts at 0: less is rounding."""

Lines = Sequence[Mapping[str, Any]]
Points = list[tuple[int, float]]


def judge(lines: Lines, stage: str, max_steps: int | None = None) -> Health:
    """The verdict on the metrics of a run of this stage; ``lines`` in order, each step once per kind.

    ``max_steps`` is the length of the run, where it is known.
    """
    trained = [line for line in lines if "loss" in line and not line.get("result")]
    tested = [line for line in lines if "loss" not in line and not line.get("result")]
    found = [*_numbers(trained, stage), *_speed(trained)]
    if stage in ROLLOUTS:
        found += [*_reward(trained), *_groups(trained)]
    else:
        found += [*_loss(trained, max_steps), *_by_heart(tested)]
    if stage in PREFERENCES:
        found += [*_pairs(trained, max_steps), *_divergence(tested)]
    worst = sorted(found, key=lambda one: -_RANK[one.level])
    if worst and worst[0].level in (Level.BAD, Level.WATCH):
        return Health(worst[0].level, tuple(worst))
    return Health(Level.GOOD if any(one.level is Level.GOOD for one in found) else Level.EARLY, tuple(worst))


_RANK = {Level.BAD: 3, Level.WATCH: 2, Level.GOOD: 1, Level.EARLY: 0}


# --- numbers that must not be -----------------------------------------------------------------


def _numbers(trained: Lines, stage: str) -> list[Finding]:
    """A loss that is none, a gradient that is none or nothing."""
    last = trained[-5:]
    for line in last:
        if _number(line["loss"]) is None:
            remedy = "lower optim.learning_rate or raise optim.warmup_steps; clusterctl resume starts before it"
            return [Finding("loss", Level.BAD, f"the loss of step {line['step']} is no number", remedy)]
    if len(last) < 5:
        return []
    norms = [line.get("grad_norm", 1.0) for line in last]
    since = f"since step {last[0]['step']}"
    if all(_number(norm) is None for norm in norms):
        remedy = "lower optim.learning_rate, or train in bf16"
        return [Finding("gradient", Level.BAD, f"the gradient is no number {since}", remedy)]
    if stage in ROLLOUTS:
        return []
    if all(norm == 0 for norm in norms):
        return [Finding("gradient", Level.BAD, f"the gradient is zero {since}: nothing is learnt")]
    if all(line["loss"] == 0 for line in last):
        remedy = "look at the rows with clusterctl plan --show-batch: is any token trained?"
        return [Finding("loss", Level.BAD, f"the loss is exactly 0 {since}", remedy)]
    return []


# --- trends -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Trend:
    """Means of the first and the last third, and the standard error of their difference."""

    before: float
    after: float
    error: float
    steps: int
    lines: int

    @property
    def words(self) -> str:
        return f"{self.before:.3g} -> {self.after:.3g} in {self.steps} steps"

    @property
    def doubt(self) -> float:
        """A change for the worse has to be larger: 3 standard errors, more where few lines make them uncertain."""
        return (3 + 25 / self.lines) * self.error

    def sure(self, max_steps: int | None) -> bool:
        """Whether a run may be blamed for it."""
        return self.lines >= 2 * LINES and self.steps >= max(3 * STEPS, BLAME * (max_steps or 0))


def _trend(points: Points) -> _Trend | None:
    """None where there are too few points to tell."""
    if len(points) < LINES or points[-1][0] < STEPS:
        return None
    third = len(points) // 3
    first, last = ([value for _, value in part] for part in (points[:third], points[-third:]))
    error = sqrt((_variance(first) + _variance(last)) / third)
    return _Trend(fmean(first), fmean(last), error, points[-1][0] - points[0][0], len(points))


def _variance(values: Sequence[float]) -> float:
    mean = fmean(values)
    return sum((value - mean) ** 2 for value in values) / max(len(values) - 1, 1)


def _loss(trained: Lines, max_steps: int | None) -> list[Finding]:
    points = _points(trained, "loss")
    trend = _trend(points)
    if trend is None:
        return [Finding("loss", Level.EARLY, f"{len(points)} lines of metrics are too few for a trend")]
    drop, size = trend.before - trend.after, abs(trend.before)
    if jump := _jump(points, trend):
        return [jump]
    if -drop > trend.doubt and -drop > 0.05 * size:
        remedy = "lower optim.learning_rate"
        return [Finding("loss", Level.BAD, f"the loss rises: {trend.words}", remedy)]
    if drop > 2 * trend.error and drop > 0.01 * size:
        return [Finding("loss", Level.GOOD, f"loss {trend.words}")]
    if trend.sure(max_steps) and drop + 2 * trend.error < 0.015 * size:
        remedy = "is optim.learning_rate too low, or the data learnt already?"
        return [Finding("loss", Level.WATCH, f"the loss does not fall: {trend.words}", remedy)]
    return [Finding("loss", Level.EARLY, f"loss {trend.words}, within its noise")]


def _jump(points: Points, trend: _Trend) -> Finding | None:
    """A loss that fell and shot up at the end, which the mean of a third does not show."""
    values = [value for _, value in points]
    width = max(4, len(values) // 10)
    means = [fmean(values[at : at + width]) for at in range(len(values) - width + 1)]
    best, now = min(means), means[-1]
    # Half the usual difference between neighbours is not swayed by the trend, nor by the jump itself.
    noise = median(abs(one - other) for one, other in pairwise(values)) * 1.05
    if now > best + 6 * noise / sqrt(width) and now > 1.3 * best and now > trend.before and best < 0.97 * means[0]:
        words = f"the loss has shot up: {best:.3g} -> {now:.3g} by step {points[-1][0]}"
        return Finding("loss", Level.BAD, words, "lower optim.learning_rate; go back to an earlier checkpoint")
    return None


def _by_heart(tested: Lines) -> list[Finding]:
    """Held-out loss that has its best well behind it."""
    points = [(step, value) for step, value in _points(tested, "eval_loss") if step > 0]
    if len(points) < 4:
        return []
    step, best = min(points, key=lambda point: point[1])
    since = [value for at, value in points if at > step]
    if best <= 0 or len(since) < 2 or min(since[-2:]) < 1.05 * best:
        return []
    words = f"the held-out loss rises since step {step}: {best:.3g} -> {since[-1]:.3g}"
    remedy = "fewer epochs, or eval.metric_for_best_model: eval_loss with early_stopping_patience"
    return [Finding("held-out loss", Level.WATCH, words, remedy)]


# --- preferences ------------------------------------------------------------------------------


def _pairs(trained: Lines, max_steps: int | None) -> list[Finding]:
    """Margin up from 0 and accuracy from 50 to 60-70 %; a loss near 0 means pairs learnt by heart."""
    found = []
    margin = _trend(_points(trained, "rewards/margins") or _points(trained, "margin"))
    right = _trend(_points(trained, "rewards/accuracies") or _points(trained, "accuracy"))
    loss = _trend(_points(trained, "loss"))
    if margin and margin.after > max(margin.before, 0.0) + max(2 * margin.error, GROWN):
        found.append(Finding("margin", Level.GOOD, f"margin {margin.words}"))
    elif margin and margin.sure(max_steps) and margin.after + 1.5 * margin.error < max(GROWN, 0.8 * margin.before):
        remedy = "is optim.learning_rate too low, or chosen and rejected the wrong way round?"
        found.append(Finding("margin", Level.WATCH, f"the margin does not grow: {margin.words}", remedy))
    if right and right.after >= 0.58:
        found.append(Finding("accuracy", Level.GOOD, f"accuracy {right.before:.0%} -> {right.after:.0%}"))
    elif right and right.sure(max_steps) and right.after + 1.5 * right.error < 0.55:
        words = f"accuracy {right.after:.0%} after {right.steps} steps: 60 to 70 % is usual"
        found.append(Finding("accuracy", Level.WATCH, words, "look at some pairs: clusterctl plan --show-batch"))
    if loss and right and loss.before > 0.3 and loss.after < 0.02 and right.after > 0.99:
        words = f"loss {loss.after:.2g} and accuracy {right.after:.0%}: learnt by heart, or pairs that are too easy"
        found.append(Finding("pairs", Level.WATCH, words, "fewer epochs, a lower learning rate or harder pairs"))
    return found


def _divergence(tested: Lines) -> list[Finding]:
    """The exact KL to the start: 0 to 20 nats is usual."""
    points = _points(tested, "eval_kl")
    if points and points[-1][1] > 20:
        words = f"KL {points[-1][1]:.3g} at step {points[-1][0]}: the model has left its start (0 to 20 is usual)"
        return [Finding("KL", Level.WATCH, words, "raise method.beta or lower optim.learning_rate")]
    return []


# --- generated answers ------------------------------------------------------------------------


def _reward(trained: Lines) -> list[Finding]:
    points = _points(trained, "reward")
    trend = _trend(points)
    if trend is None:
        return [Finding("reward", Level.EARLY, f"{len(points)} lines of metrics are too few for a trend")]
    rise = trend.after - trend.before
    if rise > 2 * trend.error:
        return [Finding("reward", Level.GOOD, f"reward {trend.words}")]
    if -rise > trend.doubt and -rise > 0.05 * abs(trend.before):
        remedy = "lower optim.learning_rate, or raise method.beta"
        return [Finding("reward", Level.WATCH, f"the reward falls: {trend.words}", remedy)]
    return [Finding("reward", Level.EARLY, f"reward {trend.words}, within its noise")]


def _groups(trained: Lines) -> list[Finding]:
    """Groups that compare nothing, and answers that are all cut."""
    equal, cut = (_recent(trained, name) for name in ("frac_reward_zero_std", "completions/clipped_ratio"))
    found = []
    if equal is not None and equal > 0.9:
        words = f"in {equal:.0%} of the groups all answers get the same reward: nothing compares"
        found.append(Finding("groups", Level.WATCH, words, "more num_generations, a finer reward, other prompts"))
    if cut is not None and cut > 0.9:
        words = f"{cut:.0%} of the answers are cut at max_completion_length"
        found.append(Finding("answers", Level.WATCH, words, "raise method.max_completion_length"))
    return found


# --- speed ------------------------------------------------------------------------------------


def _speed(trained: Lines) -> list[Finding]:
    """A GPU that is busy less than 80 % of the time, and why, where the trainer waits for its data."""
    wait, seconds = _recent(trained, "data_wait"), _recent(trained, "seconds_per_step")
    busy = _recent(trained, "gpu_utilization")
    found = []
    # A short step of a tiny model waits for nothing that more processes would bring.
    if wait is not None and seconds is not None and wait > 0.2 and wait * seconds > 0.05:
        words = f"waits {wait:.0%} of each step for its data"
        remedy = "set optim.dataloader_num_workers to 4, and ask for the CPUs"
        found.append(Finding("data loader", Level.WATCH, words, remedy))
    if busy is not None and busy < 80:
        remedy = "" if found else "a larger optim.per_device_train_batch_size, or method.packing where rows are short"
        found.append(Finding("utilisation", Level.WATCH, f"the GPU works {busy:.0f} % of the time", remedy))
    return found


def _recent(lines: Lines, name: str) -> float | None:
    """The mean of the last third, once there is one to speak of."""
    points = _points(lines, name)
    if len(points) < LINES or points[-1][0] < STEPS:
        return None
    return fmean(value for _, value in points[-(len(points) // 3) :])


def _points(lines: Lines, name: str) -> Points:
    return [(line["step"], value) for line in lines if (value := _number(line.get(name))) is not None]


def _number(value: Any) -> float | None:
    real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if real and abs(value) < 1e100 and isfinite(value) else None
