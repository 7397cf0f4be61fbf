"""What a person sees of a comparison: one line for each run, then what the columns are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clusterctl.model import JobState
from clusterctl.plan.fit import gib
from clusterctl.runs.compare import Comparison, Row
from clusterctl.views.text_table import plain, table

_ALWAYS = ("loss_first", "loss_last")
_SPEED = ("seconds_per_step", "tokens_per_second", "peak_memory")
_HEADS = {
    "loss_first": "LOSS FIRST",
    "loss_last": "LAST",
    "eval_loss_before": "EVAL BEFORE",
    "eval_loss_after": "AFTER",
    "seconds_per_step": "S/STEP",
    "tokens_per_second": "TOK/S",
    "peak_memory": "MEMORY GIB",
}


def view(found: Comparison) -> str:
    """Two tables: what was learnt, the best first, and what it took."""
    order = "highest" if found.more_is_better else "lowest"
    head = f"{len(found.runs)} runs, {order} {found.by} first\n\n" if found.by else f"{len(found.runs)} runs\n\n"
    held_out = [name for name in found.metrics if name not in (*_ALWAYS, *_SPEED)]
    losses = [name for name in found.metrics if name in _ALWAYS or name.startswith("eval_loss")]
    chosen = [*losses, *([found.by] if found.by and found.by not in (*losses, *_SPEED) else [])]
    sweeps = {row.sweep for row in found.runs}
    sweep = sweeps.pop() if len(sweeps) == 1 else ""
    short = _short(found.runs, sweep)
    keys = [key.rpartition(".")[2] for key in found.keys]
    keys = [key if keys.count(key) == 1 else whole for key, whole in zip(keys, found.keys, strict=True)]
    parts = [head]
    header = ["RUN", *keys, "STATE", *(f"{_head(name)}>" for name in chosen)]
    parts.append(table(header, [_line(row, short, found.keys, chosen) for row in found.runs]))
    took = [name for name in found.metrics if name in _SPEED]
    others = [name for name in held_out if name not in chosen]
    if took:
        rows = [(short[row.run_id], _step(row), *(_number(name, row) for name in took)) for row in found.runs]
        parts.append("\n" + table(("RUN", "STEP>", *(f"{_head(name)}>" for name in took)), rows))
    if not found.keys:
        parts.append("\ntheir configurations are the same\n")
    if others:
        parts.append("\n" + table((), [("also for --by:", ", ".join(map(plain, others)))]))
    if sweep:
        parts.append(f"\nrun N is {sweep}-N\n")
    return "".join(parts) + "".join(f"{plain(problem)}\n" for problem in found.problems)


def _line(row: Row, short: dict[str, str], keys: Sequence[str], chosen: Sequence[str]) -> list[str]:
    values = [_value(row.values.get(key)) for key in keys]
    return [short[row.run_id], *values, _state(row), *(_number(name, row) for name in chosen)]


def _short(rows: Sequence[Row], sweep: str) -> dict[str, str]:
    """The runs of one sweep by their numbers: their ids differ in nothing else."""
    return {row.run_id: row.run_id.removeprefix(f"{sweep}-") if sweep else row.run_id for row in rows}


def _state(row: Row) -> str:
    return str(row.state) if row.state is JobState.COMPLETED else f"{row.state} {_step(row)}".rstrip()


def _step(row: Row) -> str:
    return f"{row.step}/{row.max_steps}" if row.max_steps else str(row.step or "")


def _value(value: Any) -> str:
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _head(name: str) -> str:
    return _HEADS.get(name, name.replace("_", " ").upper())


def _number(name: str, row: Row) -> str:
    value = row.results.get(name)
    if value is None:
        return "-"
    if name == "peak_memory":
        return gib(int(value))
    return f"{value:,.0f}" if name == "tokens_per_second" else f"{value:.4g}"
