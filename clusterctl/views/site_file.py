"""What a person sees of a site file that was just made."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from clusterctl.runs.site_file import Draft
from clusterctl.surroundings import Surroundings
from clusterctl.views.cells import plain, table

_STYLES = {"found": "green", "guess": "yellow", "kept": "cyan"}


def view(made: Draft, *, written: bool, saved: Path | None, shown: bool) -> RenderableType:
    """What was seen, what the file says, what to know. ``shown``: the difference was on the screen before."""
    parts: list[RenderableType] = [_seen(made.seen), ""]
    if written and made.before is not None and not shown:
        parts += [plain(line) for line in made.diff.splitlines()] + [""]
    if rows := _rows(made):
        said = table("KEY", "HOW", "VALUE")
        for key, how, value in rows:
            said.add_row(plain(key), Text(how, _STYLES[how]), plain(value))
        parts += [said, ""]
    parts += [plain(f"note: {note}", "yellow") for note in made.notes]
    if not made.changed:
        parts.append(plain(f"{made.path} says this already; nothing was written."))
    elif not written:
        parts.append(plain(f"{made.path} stays as it is; nothing was written."))
    else:
        parts.append(plain(f"written: {made.path}", "bold") + plain(f" (before: {saved.name})" if saved else ""))
        parts.append(plain("Look it over: what is a guess there says so. Then: clusterctl submit RECIPE --dry-run"))
    return Group(*parts)


def _rows(made: Draft) -> list[tuple[str, str, str]]:
    rows = []
    for one in made.chosen:
        if one.key in made.kept:
            rows.append((one.key, "kept", "your own of before"))
        elif isinstance(one.value, dict) and one.key == "partitions":
            for key, value in one.value.items():
                rows.append((f"partitions.{key}", one.remarks[key].partition(":")[0], str(value)))
        elif one.value is not None:
            rows.append((one.key, one.how or "found", _words(one.value)))
    return rows


def _words(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_words(one)}" for key, one in value.items())
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _seen(seen: Surroundings) -> RenderableType:
    """A line for each part of the surroundings."""
    lines = [f"Scheduler: {_scheduler(seen)}", f"GPUs here: {_gpus(seen)}"]
    if seen.modules or seen.loaded:
        lines.append(f"Modules:   {len(seen.modules)} that could matter, {len(seen.loaded)} of such loaded here")
    lines += [f"Scratch:   {one.path}, {one.free / 1e9:,.0f} GB free ({one.seen})" for one in seen.scratch[:3]]
    reached = {True: "reached", False: "not reached", None: "not asked: HF_HUB_OFFLINE is set"}[seen.hub.reached]
    lines.append(f"Hub:       {seen.hub.endpoint or 'huggingface.co'}, {reached}")
    return Group(Text.assemble((seen.hostname, "bold")), *map(plain, lines))


def _scheduler(seen: Surroundings) -> str:
    if seen.slurm is None:
        return "no Slurm here, or it does not answer; the runner of this machine"
    with_gpus = sum(1 for node in seen.slurm.nodes if node.gpus)
    return (
        f"Slurm {seen.slurm.version}, cluster {seen.slurm.name}: {len(seen.slurm.nodes)} nodes,"
        f" {with_gpus} with GPUs, {len(seen.slurm.partitions)} partitions"
    )


def _gpus(seen: Surroundings) -> str:
    if seen.machine is None:
        return seen.no_machine
    types = Counter(gpu.gpu_type or "unknown" for gpu in seen.machine.gpus)
    return ", ".join(f"{count} x {gpu_type}" for gpu_type, count in types.items()) or "none"
