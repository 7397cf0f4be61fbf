"""What a submission would run, in numbers, and what the model would be trained on. Submits and writes nothing.

Tokenised rows are the exception: ``show_batch`` leaves them where the run looks for them.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusterctl import assets, render, yaml_text
from clusterctl.adapters import process
from clusterctl.errors import ClusterctlError, Unavailable, UsageProblem
from clusterctl.model import Resources
from clusterctl.paths import is_dir
from clusterctl.plan.batch import Batch, arithmetic
from clusterctl.runs.draft import Draft
from trainers.config import RunConfig, schema_of

_PLAIN_TEXT = ("cpt", "mlm", "stage1", "stage2")
_LONGEST = 3600
"""Seconds that tokenising may take."""


@dataclass(frozen=True)
class Value:
    """A value that is not the default, and who said it."""

    key: str
    value: Any
    origin: str


@dataclass(frozen=True)
class Planned:
    """One run of a plan. ``shown`` is what ``trainers.show`` answered, where it was asked."""

    name: str
    stage: str
    engine: str
    model: str
    adapter: str
    profile: str
    scheduler: str
    launcher: str
    strategy: str
    offload: str
    dtype: str
    resources: Resources
    batch: Batch
    values: tuple[Value, ...]
    shown: Mapping[str, Any] | None = None


def plan(draft: Draft, root: Path, *, samples: int = 0) -> Planned:
    """The plan of one draft; with ``samples`` also so many rows as the model gets them.

    Raises:
        UsageProblem: the rows cannot be tokenised.
        Unavailable: the job's Python cannot be used here.
    """
    config, parallel = draft.composed.config, draft.composed.config.parallel
    shown = show_batch(draft, root, samples) if samples else None
    if shown and "rows" in shown:
        batch = arithmetic(config, shown["rows"], str(shown["unit"]))
    else:
        batch = arithmetic(config, _rows(config), "blocks" if _packed(config) else "rows")
    return Planned(
        name=config.name,
        stage=config.stage,
        engine=config.engine,
        model=config.model.model_name_or_path,
        adapter=_adapter(config),
        profile=draft.composed.profile_name,
        scheduler=draft.plan.scheduler,
        launcher=parallel.launcher,
        strategy=parallel.strategy,
        offload=parallel.offload,
        dtype=config.precision.dtype,
        resources=draft.plan.resources,
        batch=batch,
        values=tuple(_said(draft)),
        shown=shown,
    )


def show_batch(draft: Draft, root: Path, samples: int) -> dict[str, Any]:
    """What ``trainers.show`` answers about a draft, from the Python that the job would have.

    Raises:
        UsageProblem, Unavailable: as ``plan``.
    """
    config = draft.composed.config
    model = Path(config.model.model_name_or_path)
    if model.is_absolute() and not is_dir(model):
        return {"notes": [f"{model} is made by the run before: its rows are shown when that has ended"]}
    values = config.model_dump(mode="json")
    # Where the run is going to look for them.
    values["data"]["cache_dir"] = config.data.cache_dir or str(root / ".tokenised")
    script = render.render(draft.plan, assets.find("job_templates", "show.sh").path)
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "run.yaml"
        run.write_text(yaml_text.dump(values), encoding="utf-8")
        argv = ["bash", "-c", script, "show", str(run), str(samples)]
        done = process.run(argv, timeout=_LONGEST, env=os.environ)
    return _answer(done)


def _answer(done: process.Finished) -> dict[str, Any]:
    """The last line, which is JSON. Raises ClusterctlError for everything else."""
    lines = done.stdout.strip().splitlines()
    try:
        said = json.loads(lines[-1])
    except (IndexError, ValueError):
        words = done.stderr.strip().splitlines() or [f"it ended with exit code {done.returncode}"]
        kind: type[ClusterctlError] = Unavailable
        raise kind(
            f"the rows cannot be shown here: {words[0] if done.returncode == 3 else words[-1]}",
            hint=words[1] if done.returncode == 3 and len(words) > 1 else "look at `environment` in the site file",
        ) from None
    if error := said.get("error"):
        raise UsageProblem(error["message"], hint=error["hint"])
    return dict(said)


def _rows(config: RunConfig) -> int | None:
    """Rows of the files, where they are all training rows and can be read here; None where only the run knows."""
    from trainers.data import sources
    from trainers.data.examples import LOOK, load_examples

    data = config.data
    if config.stage in _PLAIN_TEXT or _packed(config):
        return None
    if not all(sources.is_plain(name) for name in (*data.train_files, *data.eval_files)):
        return None
    if sum(Path(name).stat().st_size for name in data.train_files) > LOOK:
        return None
    return len(load_examples(config).train)


def _packed(config: RunConfig) -> bool:
    return bool(getattr(config.method, "packing", False))


def _adapter(config: RunConfig) -> str:
    model = config.model
    if model.adapter == "none":
        return "none: the weights themselves learn"
    if model.adapter_name_or_path:
        return f"lora, going on with {model.adapter_name_or_path}"
    frozen = "" if model.quantization == "none" else f" on weights in {model.quantization}"
    return f"lora, r {model.lora.r}, alpha {model.lora.lora_alpha}{frozen}"


def _said(draft: Draft) -> list[Value]:
    """What somebody said, and is not the default."""
    composed = draft.composed
    smallest = {"stage": composed.config.stage, "model": {}, "data": {}}
    schema = schema_of(smallest)
    found = []
    for key, origin in composed.origins.items():
        if key in ("name", "kind", "stage"):
            continue
        value, default = _at(composed.config, key), _default(schema, key)
        if value != default:
            found.append(Value(key, value, origin))
    return found


def _at(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = config.get(part) if isinstance(config, dict) else getattr(config, part, None)
    return config.model_dump(mode="json") if hasattr(config, "model_dump") else config


def _default(schema: Any, key: str) -> Any:
    from trainers.config.fields import section_of

    *sections, name = key.split(".")
    for part in sections:
        field = schema.model_fields.get(part)
        schema = section_of(field) if field else None
        if schema is None:
            return None
    field = schema.model_fields.get(name)
    return field.get_default() if field else None
