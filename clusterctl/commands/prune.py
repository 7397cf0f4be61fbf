"""clusterctl prune: remove old checkpoints and old runs."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from clusterctl import output, settings
from clusterctl.commands.options import Json, Runs
from clusterctl.errors import UsageProblem
from clusterctl.result import Result

EXAMPLES = """
Examples:

  clusterctl prune --dry-run

  clusterctl prune --keep 2 --older-than 7d --yes

  clusterctl prune --whole-runs --older-than 90d
"""
_UNITS = {"h": 3600, "d": 86400, "w": 7 * 86400}


def prune(
    runs: Runs = None,
    keep: Annotated[int, typer.Option("--keep", min=0, help="Newest complete checkpoints to keep in each run.")] = 1,
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="AGE", help="Only runs that ended so long ago: 12h, 7d, 8w.")
    ] = "",
    whole_runs: Annotated[
        bool, typer.Option("--whole-runs", help="Remove runs with all they hold, final models too. Needs --older-than.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go; remove nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
) -> Result:
    """Remove old checkpoints of ended runs. The best, those of living runs, and what other runs need always stay."""
    from clusterctl.adapters import store
    from clusterctl.runs import find
    from clusterctl.runs import prune as use
    from clusterctl.views import pruned

    root = settings.load().output_root
    chosen = find.several(root, runs) if runs else find.every(root)[0]
    planned = use.plan(
        chosen, list(store.run_dirs(root)), keep=keep, older_than=_age(older_than), whole_runs=whole_runs
    )
    asks = bool(planned.removals) and not dry_run and not yes
    if asks and (json or not output.can_ask()):
        raise UsageProblem("nothing is removed without being asked for", hint="add --yes, or --dry-run to look first")
    goes = not dry_run and (not asks or output.confirm(pruned.view(planned, gone=False), "Remove them?"))
    gone = list(use.remove(planned)) if goes else []
    data = {"removed": gone, "planned": planned.removals, "kept": planned.kept}
    return Result("prune", data, lambda: pruned.done(gone) if goes and asks else pruned.view(planned, gone=bool(goes)))


def _age(text: str) -> float | None:
    if not text:
        return None
    match = re.fullmatch(r"(\d{1,5})([hdw])", text.strip())
    if match is None:
        raise UsageProblem(f"--older-than {text!r} is no age", hint="write 12h, 7d or 8w")
    return int(match[1]) * _UNITS[match[2]]
