"""What a person sees of a plan: the numbers, who said what, and the rows with their trained tokens marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clusterctl import durations
from clusterctl.plan.batch import Batch
from clusterctl.runs.plan import Planned

if TYPE_CHECKING:
    from rich.text import Text

_STYLES = {
    "trained": "bold green",
    "masked": "bold green",
    "chosen": "bold green",
    "good": "bold green",
    "rejected": "bold red",
    "bad": "bold red",
    "column": "dim",
}
_MARKS = {
    "trained": "",
    "masked": "",
    "chosen": "\nchosen: ",
    "rejected": "\nrejected: ",
    "good": "\ngood: ",
    "bad": "\nbad: ",
}
"""What stands in front of the brackets."""


def view(plans: Sequence[Planned]) -> Any:
    """Every run of a plan."""
    from rich.console import Group

    parts: list[Any] = []
    for plan in plans:
        parts += [*([""] if parts else []), _facts(plan)]
        if plan.values:
            parts += ["", _values(plan)]
        if plan.shown:
            parts += ["", *_shown(plan.shown)]
    return Group(*parts)


def _facts(plan: Planned) -> Any:
    from rich.table import Table

    r = plan.resources
    gpus = f", {r.gpus_per_node} {r.gpu_type or 'GPU'} each" if r.gpus_per_node else ""
    offload = "" if plan.offload == "none" else f", offload {plan.offload}"
    facts = [
        ("run", f"{plan.name}: stage {plan.stage}, engine {plan.engine}"),
        ("model", plan.model),
        ("adapter", plan.adapter),
        ("hardware", f"profile {plan.profile} on {plan.scheduler}: {_many(r.nodes, 'node')}{gpus}"),
        ("processes", f"{plan.launcher}, {plan.strategy}{offload}, {plan.dtype}"),
    ]
    facts += [("batch", _batch(plan.batch)), ("steps", _steps(plan))]
    lead = durations.words(r.signal_lead)
    facts.append(("time limit", f"{durations.words(r.time_limit)}; {lead} before it the run saves"))
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for fact in facts:
        table.add_row(*fact)
    return table


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


def _values(plan: Planned) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("KEY", "VALUE", "SAID BY"):
        table.add_column(heading, overflow="fold")
    for value in plan.values:
        table.add_row(value.key, str(value.value), value.origin)
    return table


def _shown(shown: Mapping[str, Any]) -> list[Any]:
    parts: list[Any] = []
    if "samples" in shown:
        parts.append(_numbers(shown))
        for number, sample in enumerate(shown["samples"], start=1):
            parts += ["", f"--- {shown['unit'].removesuffix('s')} {number}", _sample(sample)]
    return [*parts, *(f"note: {note}" for note in shown["notes"])]


def _numbers(shown: Mapping[str, Any]) -> str:
    rows, counts, tokens = shown["rows"], shown["counts"], shown["tokens"]
    head = "a stream" if rows is None else f"{rows} {shown['unit']}"
    learnt = f"{shown['learnt']} of {tokens} tokens learnt ({shown['learnt'] / max(tokens, 1):.0%})"
    facts = [head, f"longest {shown['longest']} tokens", *([learnt] if shown["learnt"] else [])]
    whole = (counts.get("packed") or rows or 0) + counts.get("dropped", 0)
    for name, words in (("truncated", "cut at data.max_length"), ("dropped", "left out")):
        if whole and name in counts:
            facts.append(f"{counts[name]} of {whole} rows {words} ({counts[name] / whole:.0%})")
    if documents := counts.get("documents"):
        facts.append(f"{documents} documents, {counts['cut']} of them in several pieces, {counts['skipped']} empty")
    if held_out := counts.get("held_out"):
        facts.append(f"{held_out} rows held out")
    return "\n".join(facts)


def _sample(pieces: Sequence[Sequence[str]]) -> Text:
    """A row as text. What is learnt stands in [[brackets]], on a terminal also in colour."""
    from rich.text import Text

    text = Text()
    for kind, words in pieces:
        if kind == "border":
            text.append("\n=== the next document, which does not see the one above ===\n", style="dim")
        elif kind == "column":
            text.append(f"\n[{words}]", style="dim")
        elif kind == "context":
            text.append(words)
        else:
            text.append(f"{_MARKS[kind]}[[{words}]]", style=_STYLES[kind])
    text.rstrip()
    return text
