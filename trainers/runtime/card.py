"""The run card: everything that is needed to repeat a run, and what came out, as JSON and for people.

``run_card.json`` and ``run_card.md`` are written when a run has finished. They hold no absolute path of the
run directory and no secret: a card can be shown to others.
"""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path
from typing import Any

from trainers.config import RunConfig
from trainers.runtime.files import read_json, read_lines, write_atomically, write_json
from trainers.runtime.records import PACKAGES, git_commit, version

PREDICTION = "prediction.json"
"""What clusterctl expected when it submitted the run; there only where it had reason to expect something."""

COMPARED = {"seconds_per_step": "", "tokens_per_second": "", "peak_memory": " (bytes)", "train_seconds": ""}
"""What is told of memory and speed, with the unit where the name has none."""


LARGE = 2**31
"""Bytes of a file from which on its size alone is told: reading it again would let the GPUs wait."""


def data_fingerprint(config: RunConfig) -> list[dict[str, Any]]:
    """Size and, below LARGE, SHA-256 of every data file. Directories and data sets of the hub are named only."""
    found = []
    for name in (*config.data.train_files, *config.data.eval_files):
        path = Path(name)
        entry: dict[str, Any] = {"source": name}
        if path.is_file():
            entry["bytes"] = path.stat().st_size
            if entry["bytes"] < LARGE:
                with path.open("rb") as file:
                    entry["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
        found.append(entry)
    return found


def write_card(run_dir: Path, config: RunConfig, machines: list[dict[str, Any]], data: list[dict[str, Any]]) -> None:
    """Write both forms of the card, after ``training_metrics.json`` is there."""
    measured = _without_schema(read_json(run_dir / "training_metrics.json"))
    attempts = read_lines(run_dir / "attempts.jsonl")
    card = {
        "name": config.name,
        "run_id": read_json(run_dir / "record.json").get("run_id") or run_dir.name,
        "stage": config.stage,
        "config": config.model_dump(mode="json"),
        "command": "python -m trainers run.yaml" if config.parallel.launcher == "python" else "bash job.sh",
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "slurm_job_id": os.environ.get("SLURM_JOB_ID"),
        "attempts": max([1, *(line["attempt"] for line in attempts if isinstance(line.get("attempt"), int))]),
        "machines": machines,
        "data": data,
        "predicted": _without_schema(read_json(run_dir / PREDICTION)) or None,
        "measured": measured,
    }
    write_json(run_dir / "run_card.json", card)
    write_atomically(run_dir / "run_card.md", _markdown(card))


def _without_schema(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != "schema"}


def _markdown(card: dict[str, Any]) -> str:
    config, measured = card["config"], card["measured"]
    model, parallel, optim = config["model"], config["parallel"], config["optim"]
    processes = parallel["num_nodes"] * parallel["processes_per_node"]
    batch = optim["per_device_train_batch_size"] * processes * optim["gradient_accumulation_steps"]
    lines = [
        f"# {card['run_id']}",
        "",
        f"Stage {card['stage']} on {model['model_name_or_path']}, adapter {model['adapter']}, "
        f"learning rate {optim['learning_rate']:g}, max_length {config['data']['max_length']}, "
        f"{config['precision']['dtype']}, strategy {parallel['strategy']}, {processes} "
        f"process{'es' if processes > 1 else ''}, {batch} rows a step, {measured.get('steps')} steps in "
        f"{card['attempts']} attempt{'s' if card['attempts'] > 1 else ''}.",
        "",
        "## Result",
        "",
        *_table(("metric", "before", "after"), _results(measured)),
        "",
        "## Predicted and measured",
        "",
        *_table(("", _basis(card["predicted"] or {}), "measured"), _comparison(card["predicted"] or {}, measured)),
        "",
        "## Data",
        "",
        *_table(("source", "bytes", "SHA-256"), [(d["source"], d.get("bytes"), d.get("sha256")) for d in card["data"]]),
        "",
        f"Rows: {', '.join(f'{count} {kind}' for kind, count in measured.get('rows', {}).items())}.",
        "",
        "## Machines",
        "",
        *_table(("host", "CPUs", "GPUs"), [(m["host"], m["cpus"], _gpus(m)) for m in card["machines"]]),
        "",
        "## To repeat it",
        "",
        f"Copy `run.yaml` and `job.sh` into an empty directory, and there: `{card['command']}`. In this one, the run "
        "is done and would train nothing more. What it was given stands in `run.yaml`, and in `run_card.json`.",
        "",
        f"Code at git commit {card['git_commit'] or 'unknown'}, Python {card['python']}, "
        + ", ".join(f"{name} {number}" for name, number in card["versions"].items() if number != "not installed")
        + ".",
    ]
    return "\n".join(lines) + "\n"


def _results(measured: dict[str, Any]) -> list[tuple[Any, ...]]:
    before, after = measured.get("eval_before") or {}, measured.get("eval_after") or {}
    rows: list[tuple[Any, ...]] = [("loss", measured.get("first_loss"), measured.get("last_loss"))]
    return rows + [(name, before.get(name), after.get(name)) for name in dict.fromkeys([*before, *after])]


def _basis(predicted: dict[str, Any]) -> str:
    return "predicted (estimate)" if predicted.get("estimate") else "predicted"


def _comparison(predicted: dict[str, Any], measured: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [(name + unit, predicted.get(name), measured.get(name)) for name, unit in COMPARED.items()]


def _gpus(machine: dict[str, Any]) -> str:
    return ", ".join(f"{gpu['name']} {gpu['memory'] // 2**20} MiB {gpu['uuid']}" for gpu in machine["gpus"]) or "none"


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> list[str]:
    def line(cells: tuple[Any, ...]) -> str:
        return "| " + " | ".join(_cell(cell) for cell in cells) + " |"

    return [line(head), "|" + "---|" * len(head), *map(line, rows)]


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
