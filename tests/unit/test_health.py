"""The verdict on metrics: what goes wrong is found, and what goes well is left alone."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clusterctl.adapters import metrics
from clusterctl.runs.health import judge
from clusterctl.status import Health, Level

Curve = Callable[[int], float]


def lines(steps: int, every: int = 1, noise: float = 0.05, seed: int = 0, **curves: Curve) -> list[dict[str, Any]]:
    """Lines as the trainer writes them; ``a__b`` names the metric ``a/b``, each with noise of its own."""
    dice = random.Random(seed)
    return [
        {
            "schema": 1,
            "attempt": 1,
            "step": step,
            "time": 1e9 + step,
            "grad_norm": 1.0,
            **{name.replace("__", "/"): curve(step) + dice.gauss(0, noise) for name, curve in curves.items()},
        }
        for step in [1, *range(max(every, 2), steps + 1, every)]
    ]


def words(health: Health) -> str:
    return f"{health.level}: " + "; ".join(one.words for one in health.findings)


LEARNING: dict[str, Curve] = {
    "usual": lambda step: 0.86 + 0.8 * math.exp(-step / 40),
    "quick": lambda step: 1.0 + 0.7 * math.exp(-step / 8),
    "with warm-up": lambda step: 1.2 + 0.3 * math.exp(-step / 60) + 0.1 * math.exp(-(((step - 25) / 10) ** 2)),
    "a step down each epoch": lambda step: 1.4 - 0.3 * (step // 150) - 0.02 * math.log(step),
    "slow": lambda step: 2.0 - 0.25 * step / 400,
    "in waves": lambda step: 1.4 - 0.2 * math.tanh(step / 100) + 0.05 * math.sin(step / 17),
}


@pytest.mark.parametrize("curve", LEARNING.values(), ids=LEARNING)
def test_healthy_curves_raise_no_alarm(curve: Curve) -> None:
    """Of all lengths and noises: less than one in a hundred is called anything but healthy or too early."""
    alarms, told, seen = 0, 0, 0
    for seed in range(60):
        for noise in (0.02, 0.08, 0.2):
            for steps, every in ((12, 1), (60, 1), (120, 5), (400, 5), (400, 10)):
                verdict = judge(lines(steps, every, noise, seed, loss=curve), "sft", 400)
                alarms += verdict.level in (Level.WATCH, Level.BAD)
                told += verdict.level is Level.GOOD
                seen += 1
    assert alarms <= seen / 100
    assert told > seen / 4


@pytest.mark.parametrize("noise", [0.01, 0.05])
def test_a_loss_that_rises_shoots_up_or_stands_still(noise: float) -> None:
    for seed in range(30):
        rising = judge(lines(400, 10, noise, seed, loss=lambda step: 1.2 + step / 500), "sft")
        assert (rising.level, "rises" in words(rising)) == (Level.BAD, True)
        late = judge(lines(400, 10, noise, seed, loss=lambda step: 1 + math.exp(-step / 50) + 3 * (step > 360)), "sft")
        assert (late.level, "shot up" in words(late)) == (Level.BAD, True)
    flat = [judge(lines(400, 5, noise / 2, seed, loss=lambda step: 1.6), "sft") for seed in range(30)]
    assert sum("the loss does not fall: 1." in words(one) for one in flat) > 22
    # The same in the warm-up of a long run is no news.
    assert judge(lines(400, 5, 0.01, loss=lambda step: 1.6), "sft", 10_000).level is Level.EARLY


def test_short_runs_say_too_early() -> None:
    for verdict in (judge([], "sft"), judge(lines(12, loss=lambda step: 3 - step / 10), "sft")):
        assert verdict.level is Level.EARLY
        assert verdict.words == "too early to say"


def test_what_is_no_number_is_said_at_once() -> None:
    for bad in (None, math.nan, math.inf, "x", True):
        story = [*lines(3, loss=lambda step: 2.0), {"step": 4, "loss": bad, "attempt": 1}]
        assert "the loss of step 4 is no number" in judge(story, "sft").words
    without = [{**line, "grad_norm": None} for line in lines(9, loss=lambda step: 2.0)]
    assert "the gradient is no number since step 5" in judge(without, "sft").words
    # While an fp16 run looks for its scale, that is usual.
    assert judge(without[:4], "sft").level is Level.EARLY
    zero = [{**line, "grad_norm": 0.0} for line in lines(9, loss=lambda step: 2.0)]
    assert "nothing is learnt" in judge(zero, "sft").words
    # Where answers are compared, a loss of 0 is where every step begins.
    assert judge([{**line, "loss": 0.0} for line in zero], "grpo").level is Level.EARLY
    assert judge([{**line, "loss": 0} for line in lines(9, loss=lambda step: 0.0)], "sft").level is Level.BAD


def dpo(end: float, margin: float, right: float, **more: Curve) -> list[dict[str, Any]]:
    curves: dict[str, Curve] = {
        "loss": lambda step: end + (0.693 - end) * math.exp(-step / 80),
        "rewards__margins": lambda step: margin * (1 - math.exp(-step / 80)),
        "rewards__accuracies": lambda step: 0.5 + (right - 0.5) * (1 - math.exp(-step / 60)),
    }
    return lines(400, 10, 0.01, **(curves | more))


def test_preferences_as_they_are_expected() -> None:
    """Loss 0.7 to 0.3-0.4, accuracy 50 to 60-70 %, margin up, KL 0 to 20."""
    good = judge(dpo(0.35, 1.2, 0.68), "dpo")
    assert good.level is Level.GOOD
    assert {one.name for one in good.findings} == {"loss", "margin", "accuracy"}
    assert "accuracy 5" in words(good) and "-> 6" in words(good)
    still = judge(dpo(0.69, 0.0, 0.5), "dpo")
    assert still.level is Level.WATCH
    assert "the margin does not grow" in words(still) and "60 to 70 % is usual" in words(still)
    backwards = judge(dpo(0.9, -0.5, 0.3), "dpo")
    assert backwards.level is Level.BAD and "the loss rises" in backwards.words
    assert "learnt by heart" in words(judge(dpo(0.0, 9.0, 1.0), "dpo"))
    for kl, said in ((34.0, True), (12.0, False)):
        measured = {"step": 400, "attempt": 1, "eval_loss": 0.4, "eval_kl": kl}
        assert ("KL 34 at step 400" in judge([*dpo(0.35, 1.2, 0.68), measured], "dpo").words) is said


def test_learning_by_heart_shows_in_the_held_out_rows() -> None:
    story = lines(400, 10, 0.02, loss=lambda step: 0.2 + 1.4 * math.exp(-step / 100))
    for values, said in (([1.6, 1.2, 1.0, 1.1, 1.3], True), ([1.6, 1.2, 1.0, 1.01, 1.0], False)):
        tested = [{"step": 80 * n, "attempt": 1, "eval_loss": value} for n, value in enumerate(values)]
        verdict = judge([*story, *tested], "sft")
        assert ("the held-out loss rises since step 160: 1 -> 1.3" in verdict.words) is said


def test_generated_answers_are_judged_by_their_reward() -> None:
    loss: Curve = lambda step: 0.0  # noqa: E731
    rising = judge(lines(200, 5, 0.02, loss=loss, reward=lambda step: step / 400), "grpo")
    assert (rising.level, "reward 0." in rising.words) == (Level.GOOD, True)
    falling = judge(lines(200, 5, 0.02, loss=loss, reward=lambda step: 0.9 - step / 400), "grpo")
    assert "the reward falls" in falling.words
    equal = judge(lines(200, 5, 0.001, loss=loss, reward=loss, frac_reward_zero_std=lambda step: 0.97), "rloo")
    assert "all answers get the same reward" in equal.words
    cut = {"completions__clipped_ratio": lambda step: 0.98}
    assert "cut at max_completion_length" in judge(lines(200, 5, 0.001, loss=loss, **cut), "grpo").words


def test_an_idle_gpu_and_a_slow_data_loader() -> None:
    well: dict[str, Curve] = {"loss": LEARNING["usual"], "seconds_per_step": lambda step: 2.0}
    idle = judge(lines(200, 5, 0.01, **well, gpu_utilization=lambda step: 61.0), "sft")
    assert idle.words == "watch: the GPU works 61 % of the time"
    waiting = judge(lines(200, 5, 0.01, **well, gpu_utilization=lambda step: 55.0, data_wait=lambda step: 0.4), "sft")
    assert [one.name for one in waiting.findings[:2]] == ["data loader", "utilisation"]
    assert "dataloader_num_workers" in waiting.findings[0].remedy
    busy = judge(lines(200, 5, 0.01, **well, gpu_utilization=lambda step: 96.0, data_wait=lambda step: 0.05), "sft")
    assert busy.level is Level.GOOD
    # Two milliseconds of waiting are nothing, whatever the share.
    tiny = {**well, "seconds_per_step": lambda step: 0.02}
    assert judge(lines(200, 5, 0.001, **tiny, data_wait=lambda step: 0.4), "sft").level is Level.GOOD


def test_a_glance_reads_both_ends_of_a_long_file_and_nothing_breaks_it(tmp_path: Path) -> None:
    story = lines(20_000, loss=LEARNING["slow"])
    path = tmp_path / metrics.NAME
    path.write_text("".join(json.dumps(line) + "\n" for line in story) + '{"step": 20001, "lo', encoding="utf-8")
    seen = metrics.glance(tmp_path)
    assert (seen[0]["step"], seen[-1]["step"]) == (1, 20_000)
    assert len(json.dumps(seen)) < 2.2 * metrics.EACH_END
    assert all(line in story for line in seen)
    assert len(metrics.whole(tmp_path)) == len(story)
    # What a later attempt does again counts, and lines of anybody's making do no harm.
    again = [{"step": 3, "attempt": 2, "loss": 1.0}, {"step": 4, "attempt": 2, "loss": 0.9}]
    torn: list[Any] = [{"step": True}, {"step": "3"}, [], None, {"loss": 3}, {"step": 10**400, "loss": 10**400}]
    text = "\n".join(json.dumps(line) for line in [*lines(9, loss=LEARNING["slow"]), *again, *torn])
    path.write_bytes(text.encode() + b"\n\xff\xfe\n" + b"[" * 10_000)
    assert [line["step"] for line in metrics.glance(tmp_path)][:-1] == [1, 2, 3, 4]
    assert "is no number" in judge(metrics.glance(tmp_path), "dpo").words
    assert metrics.glance(tmp_path / "none") == []
