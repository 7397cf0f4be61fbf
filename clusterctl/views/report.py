"""What a person sees of a report: what was asked and used, expected and measured, how it learns, what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from clusterctl.durations import words
from clusterctl.model import Resources
from clusterctl.plan.fit import gib
from clusterctl.runs.report import Compared, Report, Used
from clusterctl.status import Level
from clusterctl.views.text_table import facts, table
from trainers import hardware

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 40
"""Bars of a run; of a longer one each stands for several lines of metrics."""
_PLACES = 4
"""Placements of the choice that are shown."""


def view(report: Report) -> str:
    """All of it, in 80 columns where the terminal has them."""
    parts = [facts([*_run(report), *_use(report)])]
    if report.compared:
        title = f"Expected ({report.basis}) and measured" if report.basis else "Expected and measured"
        rows = [_compared(one) for one in report.compared]
        parts.append(f"{title}\n" + table(("", "EXPECTED>", "MEASURED>", "RATIO"), rows))
    if places := list(_places(report.choice)):
        parts.append("Choice at submission, by estimate\n" + table(("PROFILE", "WHY"), places))
    parts.append("Health\n" + facts(_health(report)))
    if report.advice:
        parts.append("Advice\n" + facts([("-", one) for one in report.advice]))
    return "\n".join(parts)


def _run(report: Report) -> Iterator[tuple[str, str]]:
    test = " (a test)" if report.kind == "test" else ""
    yield "run", f"{report.run_id}{test}: {report.state}: {report.why}"
    yield "asked", f"profile {report.profile}: {_asked(report.asked)}, {words(report.asked.time_limit)}"


def _asked(asked: Resources) -> str:
    nodes = f"{asked.nodes} nodes with each " if asked.nodes > 1 else ""
    gpus = f"{asked.gpus_per_node} {asked.gpu_type or 'GPU of any type'}" if asked.gpus_per_node else "no GPU"
    mem = f", {asked.mem} memory" if asked.mem else ""
    return f"{nodes}{gpus}, {asked.cpus_per_task} CPUs{mem}"


def _use(report: Report) -> Iterator[tuple[str, str]]:
    used = report.used
    if used.cards:
        names = dict.fromkeys(card.name for card in used.cards)
        count = {name: sum(card.name == name for card in used.cards) for name in names}
        yield "cards", ", ".join(f"{many} x {name}" if many > 1 else name for name, many in count.items())
    yield "time", _time(report)
    if report.step:
        yield "steps", _steps(report)
    if used.utilization:
        yield "GPU use", _busy(used)
        yield "", _curve(used.utilization)
    elif report.asked.gpus_per_node == 0:
        yield "GPU use", "none: it runs without a GPU"
    if used.peak_memory:
        yield "memory", _memory(used)
    if used.gpu_hours is not None:
        yield "GPU hours", f"{used.gpu_hours:.2g}"


def _time(report: Report) -> str:
    used, said = report.used, []
    if used.waited is not None:
        said.append(f"waited {words(used.waited)}")
    if used.ran is not None:
        many = f" in {used.attempts} attempts" if used.attempts > 1 else ""
        share = f", {used.ran / report.asked.time_limit:.0%} of its limit" if used.attempts == 1 else ""
        said.append(f"ran {words(used.ran)}{many}{share}")
    if used.computing is not None:
        said.append(f"{used.computing:.0%} of that in steps")
    if report.eta_seconds is not None:
        said.append(f"about {words(report.eta_seconds)} left")
    return ", ".join(said) or "it has not begun"


def _steps(report: Report) -> str:
    used = report.used
    said = [f"{report.step}/{report.max_steps}" if report.max_steps else str(report.step)]
    if used.seconds_per_step:
        said.append(f"{used.seconds_per_step:.3g} s each")
    if used.tokens_per_second:
        said.append(f"{used.tokens_per_second:,.0f} tokens/s")
    if used.mfu:
        said.append(f"{used.mfu:.0%} of the GPUs' peak (MFU)")
    if used.data_wait and used.data_wait >= 0.01:
        said.append(f"{used.data_wait:.0%} waiting for data")
    return ", ".join(said)


def _busy(used: Used) -> str:
    percents = [percent for _, percent in used.utilization]
    idle = sum(percent < 80 for percent in percents) / len(percents)
    below = f", below 80% in {idle:.0%} of the lines" if idle else ""
    return f"{used.busy:.0f}% on average, {min(percents):.0f} to {max(percents):.0f}%{below}"


def _curve(points: Sequence[tuple[int, float]]) -> str:
    """Utilisation over the steps as bars from 0 to 100 %."""
    each = -(-len(points) // _WIDTH)
    bars = ""
    for start in range(0, len(points), each):
        part = [percent for _, percent in points[start : start + each]]
        level = sum(part) / len(part) / 100 * len(_BARS)
        bars += _BARS[min(max(int(level), 0), len(_BARS) - 1)]
    return f"{bars} steps {points[0][0]} to {points[-1][0]}"


def _memory(used: Used) -> str:
    peak = used.peak_memory or 0
    if not used.cards:
        return f"peak {gib(peak)} GiB of the process"
    card = used.cards[0]
    known = hardware.find(card.name, card.memory)
    has = known.usable if known else card.memory
    return f"peak {gib(peak)} of {gib(has)} GiB on the first GPU ({peak / has:.0%})"


def _compared(one: Compared) -> tuple[str, str, str, str]:
    ratio = f"{one.measured / one.predicted:.2f}" if one.measured and one.predicted else ""
    name = one.name.replace("_", " ")
    return name, _value(one.name, one.predicted), _value(one.name, one.measured), ratio


def _value(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    match name:
        case "peak_memory":
            return f"{gib(int(value))} GiB"
        case "train_seconds":
            return words(value)
        case "seconds_per_step":
            return f"{value:.3g} s"
        case _:
            return f"{value:,.0f}"


def _places(choice: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The placements that were compared; the file may be of another version."""
    places = choice.get("places")
    for place in places[:_PLACES] if isinstance(places, list) else ():
        placement = place.get("placement") if isinstance(place, dict) else None
        if isinstance(placement, dict):
            taken = " (taken)" if placement.get("profile") == choice.get("profile") else ""
            yield f"{placement.get('profile')}{taken}", str(place.get("reason") or "")


def _health(report: Report) -> list[tuple[str, str]]:
    health = report.health
    if health is None:
        return [("", "no metrics yet")]
    rows = [(str(health.level), "")] if not health.findings else []
    marks = {Level.GOOD: "good", Level.EARLY: "too early to say"}
    return rows + [(marks.get(one.level, str(one.level)), one.words) for one in health.findings]
