"""One file that explains a run, or repeats it elsewhere: records, logs, numbers, recipe and profile. No weights,
no data, no secrets."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusterctl import durations, yaml_text
from clusterctl.adapters import secrets_file
from clusterctl.compose import DECIDED_ELSEWHERE
from clusterctl.errors import Unavailable, UsageProblem
from clusterctl.paths import is_file, user_path
from clusterctl.runs.find import Run
from clusterctl.schema import Site

FILES = (
    "record.json", "run.yaml", "job.sh", "choice.json", "prediction.json", "attempts.jsonl", "progress.json",
    "metrics.jsonl", "training_metrics.json", "run_card.json", "run_card.md", "train_command.txt",
    "environment_info.txt", "training_curves.png", "bad_nodes", "fixes.jsonl", "logs/job.out", "logs/job.err",
)  # fmt: skip
"""What is taken, where it is there."""

LOG_END = 16 * 2**20
"""Bytes of the end of each file that are taken: a log may have gigabytes."""

_KEYS = re.compile(
    rb"\b(?:hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|ghp_[A-Za-z0-9]{30,}|glpat-[A-Za-z0-9_-]{20,}|AKIA[A-Z0-9]{16})"
    rb"|(?<=://)[^\s/:@]+:[^\s/@]+(?=@)"
    rb"|(?P<before>\bBearer |\b(?:[A-Z0-9_]*(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD)|[a-z_]*(?:api_?key|password|secret))"
    rb"[\"']?(?:=|: ?)[\"']?)(?:(?<=\")[^\"\\$\n][^\"\\\n]{7,}(?=\")|(?<=')[^'\\\n]{8,}(?=')|[^\s\"'\\$<{(,]{8,})"
)
"""How keys of well-known places look, for those that a user's own code has printed; who logs in at an address; and
what stands behind the name of a key, as where a job prints its environment."""

_HOW = """\
# {run_id}

An archive of one run. What it was asked is in `run.yaml`, how it went in `metrics.jsonl`, `attempts.jsonl` and `logs/`,
and, where it finished, in `run_card.md`. Weights and data are not in it; the card has
the fingerprints of the data. `job.sh` is the script as it ran, with its variables. Of a file beyond 16 MiB only the
end is here.

To repeat it elsewhere: correct the paths under `model` and `data` in `recipe.yaml`, then

    clusterctl submit recipe.yaml --profile profile.yaml
"""


@dataclass(frozen=True)
class Archived:
    """The file that was written. ``left_out`` are values in it that were keys, and are now ``***``."""

    path: Path
    files: tuple[str, ...]
    left_out: int


def archive(run: Run, path: Path | None, site: Site) -> Archived:
    """Write ``RUN.tar.gz``, or the path that is named.

    Raises:
        UsageProblem: the file exists.
        Unavailable: it cannot be written.
    """
    target = path or Path(f"{run.record.run_id}.tar.gz")
    secrets = _secrets(site)
    names, hidden = [], 0
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as packed, tarfile.open(fileobj=packed, mode="w") as tar:
        for name, raw in _contents(run):
            clean, count = _without(raw, secrets) if not name.endswith(".png") else (raw, 0)
            hidden += count
            entry = tarfile.TarInfo(f"{run.record.run_id}/{name}")
            entry.size, entry.mtime, entry.mode = len(clean), int(run.record.created_at), 0o644
            tar.addfile(entry, io.BytesIO(clean))
            names.append(name)
    try:
        with target.open("xb") as file:
            file.write(buffer.getvalue())
    except FileExistsError as e:
        raise UsageProblem(f"{target} exists", hint="name another file") from e
    except OSError as e:
        with contextlib.suppress(OSError):
            target.unlink()
        raise Unavailable(f"cannot write {target}: {e.strerror or e}", hint="name another place") from e
    return Archived(target, tuple(names), hidden)


def _contents(run: Run) -> Iterator[tuple[str, bytes]]:
    for name in FILES:
        path = run.run_dir / name
        if path.is_file() and not path.is_symlink():  # who wrote the link may want another file of ours
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - LOG_END))
                yield name, file.read()
    config = dict(yaml_text.read(run.run_dir / "run.yaml").values)
    yield "recipe.yaml", yaml_text.dump(_recipe(config)).encode()
    yield "profile.yaml", yaml_text.dump(_profile(run, config)).encode()
    yield "README.md", _HOW.format(run_id=run.record.run_id).encode()


def _recipe(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of ``run.yaml`` a recipe may say."""
    recipe: dict[str, Any] = {"description": f"From the run {config.get('name')}"}
    for section, values in config.items():
        if section in DECIDED_ELSEWHERE:
            continue
        if not isinstance(values, dict):
            recipe[section] = values
        elif inner := {k: v for k, v in values.items() if f"{section}.{k}" not in DECIDED_ELSEWHERE}:
            recipe[section] = inner
    return recipe


def _profile(run: Run, config: Mapping[str, Any]) -> dict[str, Any]:
    """The hardware that the run was given, as a profile."""
    asked, parallel = run.record.resources, config.get("parallel") or {}
    values: dict[str, Any] = {
        "description": f"As {run.record.run_id} had it",
        "gpu_type": asked.gpu_type,
        "gpus_per_node": asked.gpus_per_node,
        "nodes": asked.nodes,
        "processes_per_node": parallel.get("processes_per_node"),
        "cpus_per_task": asked.cpus_per_task,
        "mem": asked.mem,
        "time": durations.slurm_time(asked.time_limit),
        "signal_lead": asked.signal_lead,
        "launcher": parallel.get("launcher"),
        "strategy": parallel.get("strategy"),
        "offload": parallel.get("offload"),
        "dtype": (config.get("precision") or {}).get("dtype"),
    }
    return {key: value for key, value in values.items() if value is not None}


def _secrets(site: Site) -> list[bytes]:
    """The values of all keys that the site names, from the environment and the secrets file; longest first."""
    values = {os.environ.get(name, "") for name in site.secrets.names}
    if is_file(user_path(site.secrets.file)):
        values |= {value.strip() for _, value in secrets_file.pairs(site)}
    # Shorter ones would blacken ordinary words.
    return sorted((value.encode() for value in values if len(value) >= 8), key=len, reverse=True)


def _without(raw: bytes, secrets: list[bytes]) -> tuple[bytes, int]:
    count = 0
    for secret in secrets:
        count += raw.count(secret)
        raw = raw.replace(secret, b"***")
    raw, more = _KEYS.subn(rb"\g<before>***", raw)
    return raw, count + more
