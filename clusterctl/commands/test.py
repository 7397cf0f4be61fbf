"""clusterctl test: 50 real steps under the real profile, and a verdict."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from clusterctl import settings
from clusterctl.commands.options import (
    Engine,
    ForceStart,
    GpuIds,
    Gpus,
    GpuTypeOption,
    Json,
    Mixed,
    Name,
    Profile,
    Recipe,
    SchedulerOption,
    Sets,
    ids,
)
from clusterctl.result import Event, Stream

EXAMPLES = """
Examples:

  clusterctl test sft

  clusterctl test sft --profile a800-4
"""


def test(
    recipe: Recipe,
    profile: Profile = None,
    gpu_type: GpuTypeOption = None,
    gpus: Gpus = None,
    gpu_ids: GpuIds = None,
    mixed: Mixed = False,
    sets: Sets = None,
    name: Name = "",
    engine: Engine = None,
    scheduler: SchedulerOption = None,
    force_start: ForceStart = False,
    json: Json = False,
) -> Stream:
    """Train 50 steps as the full run would. Exit code 0 only when they went well.

    Says peak memory, step time and tokens/s, and estimates the full run. Of a pipeline every member is tested.
    """
    from clusterctl.commands import following
    from clusterctl.runs import draft, predict, tested
    from clusterctl.runs import submit as use
    from clusterctl.runs.request import Request
    from clusterctl.views import submitted, test_verdict

    site = settings.load()
    request = Request(
        recipe=recipe,
        profile=profile,
        sets=tuple(sets or ()),
        name=name,
        scheduler=scheduler,
        kind="test",
        engine=engine,
        force_start=force_start,
        gpu_type=gpu_type,
        gpus=gpus,
        gpu_ids=ids(gpu_ids),
        mixed=mixed,
        command=tuple(sys.argv),
    )
    drafts = draft.draft(request, site)
    runs = use.submit(drafts, request, site)

    def everything() -> Iterator[Event]:
        yield Event([submitted.data(run) for run in runs], raw=submitted.view(runs, request, tested=True))
        for run in runs:
            for event in following.events(run, lines=10_000):
                yield Event(event.data, event.view, event.raw, event.error_stream)
            outcome = tested.judge(run)
            text = test_verdict.view(outcome, submitted.like(request, runs).typed("submit"))
            yield Event(outcome, raw=text, exit_code=0 if outcome.passed else 1)
            if not outcome.passed:
                return

    notes = [*(note for d in drafts for note in d.notes), *predict.memory_notes(drafts, site.output_root)]
    return Stream("test", everything(), on_interrupt=following.goes_on(runs[-1]), notes=notes)
