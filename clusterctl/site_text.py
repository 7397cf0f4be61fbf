"""From what was seen to the text of a site file in which every key is explained. Pure."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from clusterctl import yaml_text
from clusterctl.plan import partitions
from clusterctl.surroundings import Python, Surroundings

MIRROR = "https://hf-mirror.com"
"""A public mirror of the hub, which huggingface_hub's HF_ENDPOINT can be set to (https://hf-mirror.com)."""

_WIDTH = 110
_HEAD = """\
# clusterctl.yaml: where runs happen. Every key may be left out; docs/site-file.md has them all.
# Written by `clusterctl init`. "found" was seen here; "guess" is likely, look at it; "kept" is your own line of
# before. A line behind # is off: it shows the default or an example.
"""


@dataclass(frozen=True)
class Setting:
    """A top-level key. Of a mapping, keys of ``example`` that ``value`` lacks are shown switched off.

    ``remarks`` go above single entries of a mapping.
    """

    key: str
    meaning: str
    example: Any
    value: Any = None
    how: Literal["", "found", "guess"] = ""
    said: str = ""
    remarks: Mapping[str, str] = field(default_factory=dict)


def settings(seen: Surroundings) -> tuple[Setting, ...]:
    """What to say for every key, in the order of docs/site-file.md."""
    return (
        _output_root(seen),
        _scheduler(seen),
        _partitions(seen),
        _account(seen),
        _qos(seen),
        _gpu_request(seen),
        _modules(seen),
        _environment(seen),
        Setting("env", "Variables of every job. No keys: they would stand in the script.", {"NCCL_DEBUG": "WARN"}),
        _hugging_face(seen),
        Setting(
            "tracking",
            "Defaults of a recipe's section `tracking`.",
            {"report_to": ["swanlab", "tensorboard"], "project": "my-project", "swanlab_mode": "offline"},
        ),
        Setting(
            "notify",
            "Who is told when a run ends, fails or is queued again: a command, a webhook (https://...), or mail:ADDRESS"
            " by Slurm.",
            "mail:you@example.org",
        ),
        Setting(
            "secrets",
            "Where jobs find keys that are not in their environment: a file of KEY=value lines with mode 0600.",
            {"file": "~/.config/clusterctl/secrets.env", "names": ["SWANLAB_API_KEY", "WANDB_API_KEY", "HF_TOKEN"]},
        ),
    )


def text(chosen: tuple[Setting, ...], kept: Mapping[str, Any], elsewhere: Mapping[str, str]) -> str:
    """The whole file.

    ``kept`` are values of the file that stands there: they stay, and what was seen is told beside them. ``elsewhere``
    are the places of keys that a weaker file gives, which a line here would hide: they stay off.
    """
    return "\n".join([_HEAD, *("\n".join([*_block(one, kept, elsewhere), ""]) for one in chosen)])


# --- the keys ---------------------------------------------------------------------------------


def _output_root(seen: Surroundings) -> Setting:
    roomy = ", ".join(one.path for one in seen.scratch[:3])
    return Setting(
        "output_root",
        "Folder of all run directories; relative to the working directory. The nodes must see it too.",
        "logs",
        said=f"writable places for large files: {roomy}" if roomy else "",
        how="found" if roomy else "",
    )


def _scheduler(seen: Surroundings) -> Setting:
    meaning = "Who runs the jobs: slurm, local (this machine), or auto: Slurm where sbatch knows a cluster."
    if seen.slurm is None:
        return Setting("scheduler", meaning, "auto")
    said = f"{seen.slurm.version and 'Slurm ' + seen.slurm.version}, cluster {seen.slurm.name}"
    return Setting("scheduler", meaning, "auto", "auto", "found", said)


def _partitions(seen: Surroundings) -> Setting:
    meaning = "Partition by GPU type, as Slurm's GRES calls it; `gpu` for GPUs of any type, `cpu` for none."
    example = {"a800": "gpu-large", "a40": "gpu-small", "cpu": "cpu"}
    if seen.slurm is None:
        return Setting("partitions", meaning, example)
    taken = partitions.choose(seen.slurm.nodes, seen.slurm.partitions)
    return Setting(
        "partitions",
        meaning,
        {} if taken else example,
        {one.key: one.partition for one in taken},
        remarks={one.key: f"{'found' if one.certain else 'guess'}: {one.why}" for one in taken},
    )


def _account(seen: Surroundings) -> Setting:
    slurm = seen.slurm
    others = [name for name in slurm.accounts if name != slurm.account] if slurm else []
    also = f"; yours too: {', '.join(others)}" if others else ""
    if slurm is None or slurm.account is None:
        return Setting("account", "Whom Slurm books the jobs on (sbatch --account).", "my-lab")
    return Setting(
        "account", "Whom Slurm books the jobs on (sbatch --account).", "", slurm.account, "found", f"your default{also}"
    )


def _qos(seen: Surroundings) -> Setting:
    yours = seen.slurm.qos if seen.slurm else ()
    said = f"yours are {', '.join(yours)}; without a line here Slurm takes your default" if yours else ""
    return Setting(
        "qos",
        "Slurm's quality of service, with limits of its own (sbatch --qos).",
        yours[0] if yours else "normal",
        said=said,
        how="found" if yours else "",
    )


def _gpu_request(seen: Surroundings) -> Setting:
    meaning = "Which option of sbatch asks for GPUs: gpus-per-node, or gres where the cluster does not know that one."
    if seen.slurm is None or seen.slurm.gpus_per_node:
        return Setting("gpu_request", meaning, "gpus-per-node")
    return Setting("gpu_request", meaning, "", "gres", "found", "the cluster does not use select/cons_tres")


def _modules(seen: Surroundings) -> Setting:
    meaning = "Environment modules of every job, loaded in this order on the node."
    if seen.loaded:
        return Setting("modules", meaning, [], list(seen.loaded), "guess", "they are loaded in this shell")
    some = ", ".join(seen.modules[:8]) + (" ..." if len(seen.modules) > 8 else "")
    said = f"of {len(seen.modules)} that could matter: {some}" if seen.modules else ""
    return Setting("modules", meaning, list(seen.modules[:1]), said=said, how="found" if said else "")


def _environment(seen: Surroundings) -> Setting:
    meaning = (
        "The Python that trains, which every node must see. kind: none (the one that runs clusterctl), conda"
        " (with name), venv, uv or python (with path)."
    )
    best, *others = seen.pythons
    described = [f"{_flow(one)} ({one.seen}; {_has(one)})" for one in others]
    described += [f"{{kind: conda, name: {path}}}" for path in seen.conda_environments[:5]]
    also = f"; others: {'; '.join(described)}" if described else ""
    said = f"{best.seen}; {_has(best)}{also}"
    how: Literal["found", "guess"] = "found" if best.trains else "guess"
    value = {"kind": best.kind} | ({} if best.kind == "none" else {_where(best): best.target})
    return Setting("environment", meaning, {}, value, how, said)


def _where(python: Python) -> str:
    return "name" if python.kind == "conda" else "path"


def _flow(python: Python) -> str:
    return f"{{kind: {python.kind}, {_where(python)}: {python.target}}}"


def _has(python: Python) -> str:
    if python.trains:
        return "has torch and the trainers"
    missing = [word for word in ("torch", "trainers") if word not in python.has]
    return f"has no {' and no '.join(missing)}"


def _hugging_face(seen: Surroundings) -> Setting:
    hub = seen.hub
    value: dict[str, Any] = {"endpoint": hub.endpoint, "home": hub.home, "offline": hub.offline or None}
    value = {key: said for key, said in value.items() if said is not None}
    names = {"endpoint": "HF_ENDPOINT", "home": "HF_HOME", "offline": "HF_HUB_OFFLINE"}
    big = f"{seen.scratch[0].path}/huggingface" if seen.scratch else "/data/shared/huggingface"
    remarks = {key: f"found: {names[key]} is set here" for key in value}
    return Setting(
        "hugging_face",
        "The hub. endpoint: a mirror (HF_ENDPOINT); home: the cache (HF_HOME); offline: never ask the hub.",
        {"endpoint": MIRROR, "home": big, "offline": False},
        value or None,
        remarks={"endpoint": "a known mirror, for where the hub is not reached", **remarks},
    )


# --- the lines --------------------------------------------------------------------------------


def _block(one: Setting, kept: Mapping[str, Any], elsewhere: Mapping[str, str]) -> list[str]:
    lines = _comment(one.meaning)
    if one.key in kept and kept[one.key] != one.value:
        now = f"; seen now: {_inline(one.value)}" if one.value not in (None, {}, []) else ""
        lines += _comment(f"kept{now}")
        return [*lines, *_yaml(one.key, kept[one.key])]
    lines += _comment(f"{one.how}: {one.said}") if one.said else []
    if one.key in elsewhere:
        lines += _comment(f"said by {elsewhere[one.key]}, which a line here would hide")
        return [*lines, *_off(_yaml(one.key, one.value if one.value is not None else one.example))]
    if isinstance(one.example, dict):
        return [*lines, *_mapping(one)]
    if one.value is None:
        return [*lines, *_off(_yaml(one.key, one.example))]
    return [*lines, *_yaml(one.key, one.value)]


def _mapping(one: Setting) -> list[str]:
    values = one.value or {}
    lines = []
    for key in {**values, **one.example}:
        entry = _yaml(key, values[key] if key in values else one.example[key])
        lines += _comment(one.remarks[key]) if key in one.remarks else []
        lines += entry if key in values or not values else _off(entry)
    whole = [f"{one.key}:", *(f"  {line}" for line in lines)]
    return whole if values else _off(whole)


def _yaml(key: str, value: Any) -> list[str]:
    return yaml_text.dump({key: value}).rstrip("\n").split("\n")


def _inline(value: Any) -> str:
    """In one line: what JSON writes is YAML too."""
    return json.dumps(value, ensure_ascii=False)


def _off(lines: list[str]) -> list[str]:
    return [f"# {line}" for line in lines]


def _comment(said: str) -> list[str]:
    clean = "".join(character if character.isprintable() else "?" for character in said)
    return [f"# {line}" for line in textwrap.wrap(clean, _WIDTH, break_long_words=False, break_on_hyphens=False)]
