"""What submit and resume do with a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from clusterctl.errors import UsageProblem
from clusterctl.result import Result

if TYPE_CHECKING:
    from clusterctl.runs.draft import Draft
    from clusterctl.runs.find import Run
    from clusterctl.runs.request import Request
    from clusterctl.settings import Settings


def submit(
    request: Request,
    site: Settings,
    texts: Sequence[str],
    parallel: int | None,
    after: Sequence[Run],
    *,
    notify: str | None,
    dry_run: bool,
    follow: bool,
) -> Result:
    """One run for each combination of values."""
    from clusterctl.runs import aftercare, predict, sweep, sweep_drafts
    from clusterctl.views import swept

    if not texts:
        raise UsageProblem("--parallel is the limit of a sweep", hint=f"add one: {sweep_drafts.HINT}")
    if follow:
        raise UsageProblem("--follow follows one run, not a sweep", hint="clusterctl status --watch shows all of them")
    drafts = sweep_drafts.drafts(request, texts, parallel, site)
    request, drafts = aftercare.with_word(request, drafts, notify, site.site())
    said = [note for one in drafts for note in one.notes]
    notes = _once([*said, *predict.memory_notes(drafts, site.output_root)], drafts)
    if dry_run:
        array = sweep.script(drafts) if drafts[0].plan.scheduler == "slurm" else ""
        scripts = [{"run": one.composed.config.name, "swept": one.swept, "script": one.script} for one in drafts]
        notes.append("the runs' scripts differ in the job's name at most; shown is the one of the first")
        data = {"dry_run": True, "array": array or None, "scripts": scripts}
        return Result("submit", data, lambda: array + drafts[0].script, notes=notes)
    predictions = [predict.prediction(one, site.output_root) for one in drafts]
    runs = sweep.submit_all(drafts, request, site, after, predictions)
    return Result("submit", swept.data(runs), lambda: swept.view(runs), notes=notes)


def _once(notes: Sequence[str], drafts: Sequence[Draft]) -> list[str]:
    """A line for all runs of which the same is said: 256 of them would hide every other."""
    names = {one.composed.config.name for one in drafts}
    who: dict[str, list[str]] = {}
    for note in notes:
        name, _, rest = note.partition(": ")
        if name in names:
            who.setdefault(rest, []).append(name)
        else:
            who.setdefault(note, [])
    return [f"{of[0]}{f' and {len(of) - 1} more' * (len(of) > 1)}: {said}" if of else said for said, of in who.items()]


def resume(members: Sequence[Run]) -> Result:
    """Those of its runs again that have ended without finishing."""
    from clusterctl.runs import sweep
    from clusterctl.views import swept

    runs = sweep.resume(members)
    return Result("resume", swept.data(runs), lambda: swept.resumed(runs))
