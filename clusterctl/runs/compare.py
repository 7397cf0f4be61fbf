"""What differs between runs, in their configurations and in their results."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clusterctl import yaml_text
from clusterctl.adapters import metrics, store
from clusterctl.errors import ClusterctlError, UsageProblem
from clusterctl.layers import leaves
from clusterctl.model import JobState
from clusterctl.runs import status
from clusterctl.runs.find import Run
from clusterctl.status import Status

_NO_DIFFERENCE = ("name", "kind", "schema_version")
"""Keys of run.yaml that say nothing of what was trained."""
_MORE_IS_BETTER = ("accurac", "reward", "margin", "tokens_per_second", "score")
_EVAL = "eval_"


@dataclass(frozen=True)
class Row:
    """One run. ``values`` are those of the keys that differ; ``results`` what it has measured so far.

    ``results`` has loss_first, loss_last, each held-out metric with _before and _after where it was measured twice,
    seconds_per_step, tokens_per_second, peak_memory (bytes).
    """

    run_id: str
    sweep: str
    state: JobState
    step: int
    max_steps: int | None
    values: Mapping[str, Any]
    results: Mapping[str, float]


@dataclass(frozen=True)
class Comparison:
    """``keys`` of the configuration that differ, ``by`` the result that the runs are sorted by, the best first."""

    keys: tuple[str, ...]
    metrics: tuple[str, ...]
    by: str
    more_is_better: bool
    runs: tuple[Row, ...]
    problems: tuple[str, ...] = ()


def compare(runs: Sequence[Run], by: str | None) -> Comparison:
    """The table. Runs without the metric come last, in their order.

    Raises:
        UsageProblem: fewer than two runs, or none of them has measured ``by``.
    """
    if len(runs) < 2:
        raise UsageProblem("one run cannot be compared", hint="name a sweep or several runs")
    problems: list[str] = []
    configs = [_config(run, problems) for run in runs]
    keys = tuple(key for key in dict.fromkeys(key for one in configs for key in one) if _differs(key, configs))
    looks = status.look(runs)
    rows = [
        Row(
            now.record.run_id,
            now.record.sweep,
            now.state,
            now.progress.step,
            now.progress.max_steps,
            {key: config.get(key) for key in keys},
            results(run, now),
        )
        for run, now, config in zip(runs, looks, configs, strict=True)
    ]
    known = tuple(dict.fromkeys(name for row in rows for name in row.results))
    by = _by(by, known)
    more = any(word in by for word in _MORE_IS_BETTER)

    def place(row: Row) -> tuple[bool, float]:
        value = row.results.get(by)
        return value is None, 0.0 if value is None else -value if more else value

    return Comparison(keys, known, by, more, tuple(sorted(rows, key=place)), tuple(problems))


def _config(run: Run, problems: list[str]) -> dict[str, Any]:
    try:
        values = yaml_text.read(run.run_dir / "run.yaml").values
    except ClusterctlError as e:
        problems.append(e.message)
        return {}
    return {key: value for key, value in leaves(values) if key not in _NO_DIFFERENCE}


def _differs(key: str, configs: Sequence[Mapping[str, Any]]) -> bool:
    """A configuration that cannot be read tells nothing."""
    readable = [one for one in configs if one]
    return any(one.get(key) != readable[0].get(key) for one in readable)


def results(run: Run, now: Status) -> dict[str, float]:
    """What a run has measured: finished or not, from its metrics; a summary has the held-out ones from before."""
    lines = metrics.whole(run.run_dir)
    trained = [line for line in lines if "loss" in line and not line.get("result")]
    steady = trained[1:] or trained
    summary = store.read_json(run.run_dir / "training_metrics.json")
    found: dict[str, Any] = {}
    if trained:
        found |= {"loss_first": trained[0]["loss"], "loss_last": trained[-1]["loss"]}
    held_out = [(line["step"], line) for line in lines if any(name.startswith(_EVAL) for name in line)]
    before, after = _of(summary.get("eval_before")), _of(summary.get("eval_after"))
    for step, line in held_out:
        measured = {name: value for name, value in line.items() if name.startswith(_EVAL)}
        if step == 0:
            before = {**measured, **before}
        elif not summary.get("eval_after"):
            after |= measured
    found |= {f"{name}_before": value for name, value in before.items()}
    found |= {f"{name}_after": value for name, value in after.items()}
    for name in ("seconds_per_step", "tokens_per_second"):
        values = [value for line in steady if (value := store.number(line.get(name))) is not None]
        found[name] = sum(values) / len(values) if values else None
    found["peak_memory"] = max((store.number(line.get("peak_memory")) or 0 for line in trained), default=0) or None
    return {name: number for name, value in found.items() if (number := store.number(value)) is not None}


def _of(said: object) -> dict[str, Any]:
    if not isinstance(said, dict):
        return {}
    return {name if str(name).startswith(_EVAL) else f"{_EVAL}{name}": value for name, value in said.items()}


def _by(asked: str | None, known: Sequence[str]) -> str:
    """A metric by its name or without its ending: eval_loss is the one after training."""
    if asked is None:
        wishes = ("eval_loss_after", "loss_last")
        return next((name for name in wishes if name in known), known[0] if known else "")
    names = {name.removesuffix(end): name for end in ("_first", "_before", "_last", "_after") for name in known}
    if asked in known or asked in names:
        return asked if asked in known else names[asked]
    near = difflib.get_close_matches(asked, [*names, *known], n=1, cutoff=0.5)
    there = f"there are: {', '.join(known)}" if known else "none of them has measured anything yet"
    raise UsageProblem(f"no run has measured {asked!r}", hint=f"did you mean {near[0]}?" if near else there)
