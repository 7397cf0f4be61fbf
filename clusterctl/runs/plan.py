"""What a submission would run, in numbers: whether it fits, how long it takes, when it starts and ends.

Submits and writes nothing. Memory, durations and starts are estimates, unless a test of the same configuration
measured them.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clusterctl.errors import ClusterctlError
from clusterctl.model import QueueStart, Resources
from clusterctl.plan.batch import Batch
from clusterctl.plan.estimates import Duration, Fit, Memory, Verdict
from clusterctl.runs import judge, measured, rows, said
from clusterctl.runs.draft import Draft, draft_or_nearest
from clusterctl.runs.inventory import inventory as looked_at
from clusterctl.runs.request import Request
from clusterctl.runs.rows import Rows
from clusterctl.runs.starts import starts
from clusterctl.settings import Settings
from trainers.config import RunConfig

if TYPE_CHECKING:
    from clusterctl.runs.choose import Choice
    from clusterctl.runs.fix import Fix


@dataclass(frozen=True)
class Planned:
    """One run of a plan.

    Times in seconds; ``wait`` and ``finish`` count from now, ``seconds`` is the whole ``duration``, ``in_time`` says
    whether that is over before the run is told to save and leave; None where nobody knows. ``about``: the steps
    behind it are guessed. ``choice`` is None where a profile was named. ``fix`` is there where the run does not fit
    and something helps. ``shown`` is what ``trainers.show`` answered, where it was asked.
    """

    name: str
    stage: str
    engine: str
    model: str
    parameters: int | None
    known_from: str
    adapter: str
    profile: str
    scheduler: str
    launcher: str
    strategy: str
    offload: str
    dtype: str
    resources: Resources
    batch: Batch
    rows: Rows
    verdict: Verdict
    memory: Memory | None
    duration: Duration | None
    seconds: float | None
    in_time: bool | None
    about: bool
    start: QueueStart | None
    wait: float | None
    finish: float | None
    values: tuple[said.Value, ...]
    choice: Choice | None = None
    fix: Fix | None = None
    shown: Mapping[str, Any] | None = None


def plan(request: Request, settings: Settings, *, samples: int = 0) -> tuple[list[Planned], list[str]]:
    """The plan of a recipe, one for each member of a pipeline, and notes; with ``samples`` so many rows of each.

    Raises:
        UsageProblem, NotFound: every error of recipe, profile, site and options.
        NoFit: what is asked for is not there at all.
        Unavailable: the job's Python cannot be used here, or nobody says what GPUs there are.
    """
    drafts, nothing = draft_or_nearest(request, settings)
    points = measured.points(settings.output_root)
    plans: list[Planned] = []
    for number, one in enumerate(drafts):
        shown = _shown(one, settings, samples) if samples else None
        # When the later members of a pipeline begin, depends on the ones before.
        start = None if number else starts(one.plan.scheduler)(one.plan.resources)
        judged = judge.judge(one.composed, _rows(one, shown), points, one.fingerprint, one.plan.scheduler)
        made = _planned(one, judged, start, shown, nothing or one.choice)
        if made.verdict.fit is Fit.NOT:
            from clusterctl.runs import fix

            found = fix.find(request, settings, looked_at(one.plan.scheduler, settings.site()), drafts, number)
            made = dataclasses.replace(made, fix=found)
        plans.append(made)
    return _in_line(plans), [note for one in drafts for note in (*one.notes, *_unknown(one, settings))]


def _shown(one: Draft, settings: Settings, samples: int) -> Mapping[str, Any]:
    from clusterctl.runs.show_batch import show_batch

    return show_batch(one, settings.output_root, samples)


def _rows(one: Draft, shown: Mapping[str, Any] | None) -> Rows:
    """The rows of a run: counted where they were tokenised, else as far as they can be told without."""
    if not shown or "rows" not in shown:
        return rows.look(one.composed.config)
    count, tokens = shown["rows"], shown.get("tokens")
    length = tokens / count if count and tokens else float(one.composed.config.data.max_length)
    return Rows(count, None, length, "tokenised", str(shown["unit"]))


def _planned(
    one: Draft,
    judged: judge.Judged,
    start: QueueStart | None,
    shown: Mapping[str, Any] | None,
    choice: Choice | None,
) -> Planned:
    config, parallel, shape = one.composed.config, one.composed.config.parallel, one.composed.shape
    wait = max(0.0, start.at - time.time()) if start and start.at is not None else None
    seconds = judged.duration.total if judged.duration else None
    return Planned(
        name=config.name,
        stage=config.stage,
        engine=config.engine,
        model=config.model.model_name_or_path,
        parameters=shape.total if shape else None,
        known_from=shape.source if shape else "",
        adapter=_adapter(config),
        profile=one.composed.profile_name,
        scheduler=one.plan.scheduler,
        launcher=parallel.launcher,
        strategy=parallel.strategy,
        offload=parallel.offload,
        dtype=config.precision.dtype,
        resources=one.plan.resources,
        batch=judged.batch,
        rows=judged.rows,
        verdict=judged.verdict,
        memory=judged.memory,
        duration=judged.duration,
        seconds=seconds,
        in_time=None if seconds is None else seconds <= _room(one.plan.resources),
        about=judged.about,
        start=start,
        wait=wait,
        finish=None if wait is None or seconds is None else wait + seconds,
        values=tuple(said.said(one.composed)),
        choice=choice,
        shown=shown,
    )


def _room(resources: Resources) -> int:
    """Seconds that a run may take before the scheduler's signal makes it save and leave."""
    return resources.time_limit - resources.signal_lead


def _in_line(plans: Sequence[Planned]) -> list[Planned]:
    """The members of a pipeline one after the other: each begins when the one before it ends, at the earliest."""
    done: list[Planned] = []
    for number, one in enumerate(plans):
        wait = done[-1].finish if number else one.wait
        finish = None if wait is None or one.seconds is None else wait + one.seconds
        done.append(dataclasses.replace(one, wait=wait, finish=finish))
    return done


def _unknown(one: Draft, settings: Settings) -> list[str]:
    """Why nothing is known of a model, and what was concluded where its architecture is not."""
    shape, config = one.composed.shape, one.composed.config
    if shape is not None:
        return list(shape.notes)
    from clusterctl.models.of_run import shape_of

    try:
        shape_of(config, settings.site().hugging_face.home)
    except ClusterctlError as e:
        return [f"memory and time are not estimated: {e.message}" + (f" ({e.hint})" if e.hint else "")]
    return []


def _adapter(config: RunConfig) -> str:
    model = config.model
    if model.adapter == "none":
        return "none: the weights themselves learn"
    if model.adapter_name_or_path:
        return f"lora, going on with {model.adapter_name_or_path}"
    frozen = "" if model.quantization == "none" else f" on weights in {model.quantization}"
    return f"lora, r {model.lora.r}, alpha {model.lora.lora_alpha}{frozen}"
