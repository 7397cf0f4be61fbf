"""Advice after the fact: what would have held a run, what would have made it faster, what its metrics ask for."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from math import ceil
from typing import Any

from yaml import YAMLError

from clusterctl import durations
from clusterctl.adapters import store
from clusterctl.errors import ClusterctlError
from clusterctl.model import JobState
from clusterctl.models.of_run import shape_of
from clusterctl.models.shape import Shape
from clusterctl.plan import advice, fit
from clusterctl.plan.work import sequences
from clusterctl.runs.find import Run
from clusterctl.runs.inventory import inventory
from clusterctl.runs.report import Report, Used
from clusterctl.settings import Settings
from clusterctl.status import Level
from trainers import hardware
from trainers.config import RunConfig, load
from trainers.hardware import GpuType

WORTH = 600
"""Seconds of an earlier start that are worth a word."""
SHORT = 0.5
"""Share of its time limit below which a run is told to ask for less."""


def advise(run: Run, report: Report, settings: Settings) -> Report:
    """The report with its advice. What cannot be found out here is left out."""
    found = (*_of_metrics(report), *_of_time(report), *_of_cards(run, report, settings))
    return dataclasses.replace(report, advice=found)


def _of_metrics(report: Report) -> Iterator[str]:
    for finding in report.health.findings if report.health else ():
        if finding.remedy and finding.level in (Level.WATCH, Level.BAD):
            yield f"{finding.words}: {finding.remedy}"


def _of_time(report: Report) -> Iterator[str]:
    limit, ran = report.asked.time_limit, report.used.ran
    if report.makes_time_limit is False and report.eta_seconds is not None:
        left = durations.words(report.eta_seconds)
        yield f"it needs {left} more, which is beyond its limit: it saves before that and is queued again"
    alone = report.used.attempts == 1 and report.scheduler == "slurm"
    if report.state is JobState.COMPLETED and alone and ran and limit >= 3600 and ran < SHORT * limit:
        fair = durations.slurm_time(600 * ceil(1.5 * ran / 600))
        yield (
            f"it took {durations.words(ran)} of its limit of {durations.words(limit)}: Slurm finds room earlier for "
            f"shorter jobs, so --set profile.time={fair}"
        )


def _of_cards(run: Run, report: Report, settings: Settings) -> Iterator[str]:
    """What the planner says of other cards and other batches; nothing without a GPU or a known model."""
    used = report.used
    if not used.cards or not used.peak_memory or not used.seconds_per_step or not used.tokens_per_second:
        return
    card = hardware.find(used.cards[0].name, used.cards[0].memory)
    config = _config(run)
    if card is None or config is None or str(config.engine) == "verl":
        return
    measured = advice.Measured(card, config.parallel.world_size, used.peak_memory, _row_length(config, used))
    try:
        shape = shape_of(config, settings.site().hugging_face.home)
        yield from _cheaper(config, shape, measured, _others(settings, run), report)
        yield from _faster(config, shape, measured)
    except ClusterctlError:
        return


def _config(run: Run) -> RunConfig | None:
    """What the run was given; None where this version cannot read it."""
    try:
        return load(run.run_dir / "run.yaml")
    except (OSError, ValueError, YAMLError):
        return None


def _cheaper(
    config: RunConfig, shape: Shape, measured: advice.Measured, others: Mapping[GpuType, int], report: Report
) -> Iterator[str]:
    waits = _waits(report.choice)
    for one in advice.cheaper(config, shape, measured, others):
        many = fit.article(one.card.name.upper()) if one.count == 1 else f"{one.count} {one.card.name.upper()}"
        longer = f"about {one.longer:.1f} times as long" if one.longer > 1.05 else "about as fast"
        yield (
            f"{many} would hold it: {fit.gib(one.needs)} of {fit.gib(one.card.usable)} GiB"
            f"{' each' if one.count > 1 else ''}, {longer}{_earlier(waits, report.profile, one)} (estimate)"
        )


def _waits(choice: Mapping[str, Any]) -> dict[str, float]:
    """Seconds until each placement was to start, when the choice was made; the file may be of another version."""
    places = choice.get("places")
    found: dict[str, float] = {}
    for place in places if isinstance(places, list) else ():
        placement = place.get("placement") if isinstance(place, dict) else None
        wait = store.number(place.get("wait")) if isinstance(placement, dict) else None
        if isinstance(placement, dict) and wait is not None:
            found[str(placement.get("profile"))] = wait
    return found


def _earlier(waits: Mapping[str, float], profile: str, one: advice.Cards) -> str:
    own, name = waits.get(profile), f"{one.card.name}-{one.count}"
    others = [wait for other, wait in waits.items() if other == name or other.startswith(f"{name}-")]
    if own is None or not others or own - min(others) < WORTH:
        return ""
    return f", but it was to start {durations.words(own - min(others))} earlier"


def _faster(config: RunConfig, shape: Shape, measured: advice.Measured) -> Iterator[str]:
    if change := advice.faster(config, shape, measured):
        sets = " ".join(f"--set {word}" for word in change.sets)
        has = fit.gib(measured.card.usable)
        yield f"{sets} fits too, {fit.gib(change.needs)} of {has} GiB, and saves about {change.shorter:.0%} (estimate)"


def _others(settings: Settings, run: Run) -> dict[GpuType, int]:
    """The types of GPU that there are here, with the cards of the largest node that takes work.

    Of types that only the site file names a node is taken to have as many as the run had.
    """
    found: dict[GpuType, int] = {}
    for offer in inventory(run.record.scheduler, settings.site()).offers:
        if offer.gpus_per_node and (known := hardware.find(offer.gpu_type)):
            found[known] = max(found.get(known, 0), offer.gpus_per_node)
    named = [known for word in settings.site().partitions if (known := hardware.find(word))]
    return dict.fromkeys(named, run.record.resources.gpus_per_node) | found


def _row_length(config: RunConfig, used: Used) -> float:
    """Tokens of a sequence, from those of a step."""
    optim = config.optim
    rows = optim.per_device_train_batch_size * optim.gradient_accumulation_steps * config.parallel.world_size
    return (used.tokens_per_second or 0) * (used.seconds_per_step or 0) / (rows * sequences(config))
