"""What a person sees of a plan: whether it fits, when it ends, the numbers, who said what."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clusterctl import durations
from clusterctl.plan.batch import Batch
from clusterctl.plan.estimates import NOW, Duration, Fit
from clusterctl.plan.fit import gib
from clusterctl.runs.plan import Planned
from clusterctl.views.text_table import facts, plain, table

if TYPE_CHECKING:
    from clusterctl.plan.rank import Place
    from clusterctl.runs.choose import Choice

_SHOWN = 8
"""Places of a choice that would do; of those that will not, every one is told with its number."""


def view(plans: Sequence[Planned], *, explain: bool = False) -> Any:
    """Every run of a plan; with ``explain`` each term of memory and time. Plain text, but for shown rows."""
    texts = [_one(plan, explain=explain) for plan in plans]
    if len(plans) > 1:
        texts.append(_line(plans))
    if not any(plan.shown for plan in plans):
        return "\n".join(texts)
    from rich.console import Group
    from rich.text import Text

    from clusterctl.views import samples

    parts: list[Any] = []
    for number, text in enumerate(texts):
        shown = plans[number].shown if number < len(plans) else None
        parts += [*([""] if parts else []), Text(text.rstrip("\n"))]
        parts += ["", *samples.lines(shown)] if shown else []
    return Group(*parts)


def _one(plan: Planned, *, explain: bool) -> str:
    parts = [facts(_facts(plan))]
    if explain:
        from clusterctl.views.explained_plan import terms

        parts.append(terms(plan))
    if plan.choice:
        parts.append(_places(plan.choice))
    if plan.values:
        here = f"{Path.cwd()}/"
        rows = [
            (value.key, *(str(text).replace(here, "") for text in (value.value, value.origin))) for value in plan.values
        ]
        parts.append(table(("KEY", "VALUE", "SAID BY"), rows))
    return "\n".join(parts)


def _facts(plan: Planned) -> list[tuple[str, str]]:
    r = plan.resources
    gpus = f", {r.gpus_per_node} {r.gpu_type or 'GPU'} each" if r.gpus_per_node else ""
    offload = "" if plan.offload == "none" else f", offload {plan.offload}"
    known = f", {_count(plan.parameters)} parameters ({plan.known_from})" if plan.parameters else ""
    found = [
        ("run", f"{plan.name}: stage {plan.stage}, engine {plan.engine}"),
        ("model", plan.model + known),
        ("adapter", plan.adapter),
        ("hardware", f"profile {plan.profile} on {plan.scheduler}: {_many(r.nodes, 'node')}{gpus}"),
        ("processes", f"{plan.launcher}, {plan.strategy}{offload}, {plan.dtype}"),
        ("batch", _batch(plan.batch)),
        ("steps", _steps(plan)),
        ("memory", f"{plan.verdict.fit}: {plan.verdict.why}{_basis(plan)}"),
        ("duration", _duration(plan.duration, plan)),
        ("start", _start(plan)),
        ("end", _end(plan)),
        ("time limit", _time_limit(plan)),
    ]
    if plan.fix:
        found.append(("to make it fit", f"{plan.fix.words}; then it {plan.fix.verdict.why}"))
        found.append(("", plan.fix.command))
    return found


def _basis(plan: Planned) -> str:
    memory = plan.memory
    if memory is None or plan.verdict.needs is None:
        return ""
    if memory.measured_in:
        return f" (measured in {memory.measured_in})"
    row = "prompt" if plan.batch.group > 1 else "row"
    return f" (estimate; no {row} has more than {plan.rows.most} tokens)" if plan.rows.most else " (estimate)"


def _duration(took: Duration | None, plan: Planned) -> str:
    if took is None:
        steps = "" if plan.batch.steps or plan.rows.about else ": the number of steps is not"
        return f"not known{steps}; `clusterctl test` measures it"
    if took.measured_in:
        basis = f"estimate from the speed measured in {took.measured_in}"
    else:
        basis = f"estimate, {took.efficiency:.0%} of the card's peak" if took.efficiency else "estimate"
    guessed = ", steps guessed from the files" if plan.about else ""
    return f"about {durations.words(took.total)} ({basis}; rows: {plan.rows.basis}{guessed})"


def _start(plan: Planned) -> str:
    start = plan.start
    if start is None:
        return "when the run before it has ended"
    if start.refused:
        return f"never: the scheduler would refuse it: {plain(start.why)}"
    if start.at is None:
        return "not known" + (f": {plain(start.why)}" if start.why else "")
    if plan.scheduler == "slurm":
        return f"{_in(plan.wait)} (Slurm's estimate)"
    return "now" + (" (the GPUs are free at this moment)" if plan.resources.gpus_per_node else "")


def _in(seconds: float | None) -> str:
    if seconds is None:
        return "not known"
    return "now" if seconds < NOW else f"in {durations.words(seconds)}"


def _end(plan: Planned) -> str:
    if plan.verdict.fit is Fit.NOT or (plan.start and plan.start.refused):
        return "never, as it is"
    limit = {
        None: "whether before its time limit, nobody knows",
        True: "before its time limit",
        False: "after its time limit: it saves and goes on in another job",
    }[plan.in_time]
    if plan.finish is None:
        return f"not known; {limit}" if plan.in_time is None else limit
    return f"in {durations.words(plan.finish)}, {limit}"


def _time_limit(plan: Planned) -> str:
    limit, lead = plan.resources.time_limit, plan.resources.signal_lead
    text = f"{durations.words(limit)}; {durations.words(lead)} before it the run saves"
    waits = plan.scheduler == "slurm" and plan.seconds is not None and (plan.wait is None or plan.wait >= NOW)
    if not waits or plan.seconds is None:
        return text
    # Backfill starts a job in a gap that is long enough for its limit. Twice the estimate, in whole hours.
    enough = ceil((2 * plan.seconds + lead) / 3600) * 3600
    if enough > limit / 2:
        return text
    return f"{text}; a shorter one may start earlier: --set profile.time={durations.slurm_time(enough)}"


def _line(plans: Sequence[Planned]) -> str:
    """The pipeline as a whole."""
    took = [plan.seconds for plan in plans]
    known = sum(seconds for seconds in took if seconds is not None)
    together = f"about {durations.words(known)} together"
    if missing := took.count(None):
        together += f", and {missing} of which it is not known" if missing < len(took) else ""
    if missing == len(took):
        together = "how long they take is not known"
    end = plans[-1].finish
    ends = "not known" if end is None else f"in {durations.words(end)}"
    if any(plan.verdict.fit is Fit.NOT for plan in plans):
        ends = "never, as it is: not all of them fit"
    return facts([("pipeline", f"{len(plans)} runs, {together}"), ("end", ends)])


def _places(choice: Choice) -> str:
    possible = [place for place in choice.places if place.placement.possible]
    rest = [place for place in choice.places if not place.placement.possible]
    heading = "No profile will do. The numbers above are those of the one that lacks least."
    if possible:
        heading = f"Chosen: {choice.profile}, which {choice.reason}."
    rows = [_place(place) for place in possible[:_SHOWN]]
    more = f"{len(possible) - _SHOWN} more would do, and are no better.\n" if len(possible) > _SHOWN else ""
    notes = "".join(f"{plain(note)}\n" for note in choice.notes)
    header = ("PROFILE", "NEEDS>", "HAS>", "STARTS", "RUNS>", "ENDS", "WHY")
    good = table(header, rows) if rows else ""
    gap = "\n" if rows and rest else ""
    bad = table(("PROFILE", "WHY NOT"), [(one.placement.profile, one.reason) for one in rest]) if rest else ""
    return f"{heading}\n\n{good}{more}{gap}{bad}{notes}"


def _place(place: Place) -> tuple[str, ...]:
    one, needs = place.placement, place.placement.verdict.needs
    return (
        one.profile,
        "-" if needs is None else gib(needs),
        "-" if one.usable is None else gib(one.usable),
        "-" if place.wait is None else _in(place.wait),
        "-" if one.seconds is None else durations.words(one.seconds),
        "-" if place.finish is None else f"in {durations.words(place.finish)}",
        place.reason,
    )


def _count(number: int) -> str:
    return f"{number / 1e9:.2f} billion" if number >= 1e9 else f"{number / 1e6:.1f} million"


def _many(count: int, thing: str) -> str:
    return f"{count} {thing}" + ("" if count == 1 else "es" if thing.endswith("s") else "s")


def _batch(batch: Batch) -> str:
    prompts = _many(batch.effective // batch.group, "prompt")
    group = f": {prompts} with {batch.group} answers each" if batch.group > 1 else ""
    return (
        f"{batch.per_device} per device x {_many(batch.processes, 'process')} x {batch.accumulation} accumulated"
        f" = {batch.effective} {batch.unit} a step{group}"
    )


def _steps(plan: Planned) -> str:
    batch = plan.batch
    if batch.steps_per_epoch is None:
        if batch.steps:
            return f"{batch.steps} (max_steps)"
        found = "when the run starts" if plan.engine == "verl" else "from the tokenised rows: --show-batch"
        return f"those of {batch.epochs:g} epochs; how many is known {found}"
    unit = batch.unit if batch.group == 1 else "prompts"
    head = f"{batch.rows} {unit} / {batch.effective // batch.group} -> {batch.steps_per_epoch} steps an epoch"
    if batch.epochs is None:
        return f"{head}; max_steps {batch.steps}"
    return f"{head} x {batch.epochs:g} epochs -> {batch.steps} steps"
