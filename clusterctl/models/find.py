"""From a model's name to its shape: a directory, the hub's cache, or the shipped catalogue. Asks no network."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from clusterctl.errors import NotFound, UsageProblem
from clusterctl.models import catalogue
from clusterctl.models.families import family_of, known
from clusterctl.models.shape import HeadName, Parameter, PartName, Shape
from clusterctl.models.unknown import bound
from clusterctl.paths import is_dir, is_file, text_of, user_path

FILE = "adapter_model.safetensors"
"""The weights of an adapter, as PEFT saves them."""

LONGEST = 100_000_000
"""Bytes of the header of a safetensors file at most, by its format."""

_PARTS: dict[str, PartName] = {
    "vision_tower": "other",
    "experts": "experts",
    "attn": "attention",
    "attention": "attention",
    "norm": "norm",
    "embed": "embedding",
    "lm_head": "head",
}

HEADS: dict[str, HeadName] = {"mlm": "masked", "reward": "classifier"}


def head_of(stage: str) -> HeadName:
    """What a stage loads its model as; see trainers/stages."""
    return HEADS.get(stage, "causal")


def shape_of(
    name: str, *, hub_home: str | None = None, head: HeadName | None = None, revision: str | None = None
) -> Shape:
    """The shape of a model.

    Args:
        name: a directory with a config.json, or a name on the hub.
        hub_home: HF_HOME of the jobs where it is not that of this shell, as the site file has it.
        head: what the model is loaded as, see ``head_of``; None: what its architecture is for.
        revision: branch, tag or commit on the hub.

    Raises:
        UsageProblem: a config.json that is broken, or has not the sizes of a model; a head that it cannot have.
        NotFound: neither a directory nor in the hub's cache nor shipped.
    """
    folder = user_path(name)
    if is_dir(folder):
        return _from_folder(name, folder, head)
    cached = _cached(name, hub_home, revision)
    if cached:
        return from_config(_read(cached), name, f"the hub's cache, {cached}", head)
    shipped = catalogue.find(name)
    if shipped:
        return from_config(shipped, name, "the shipped catalogue", head)
    raise _unknown(name)


def from_config(values: dict[str, Any], name: str, source: str, head: HeadName | None = None) -> Shape:
    """The shape of what a config.json describes: exact where its architecture is known, else a bound that says so.

    Args:
        values: the config.json.
        name: what the user calls the model.
        source: where the config is from, in words.
        head: what the model is loaded as; None: what its architecture is for.

    Raises:
        UsageProblem: sizes that are missing or impossible; a head that the model cannot have.
    """
    family = family_of(values)
    shape = known(values, family, name, source, head) if family else bound(values, name, source, head)
    stored = values.get("quantization_config")
    if isinstance(stored, dict):
        kind = stored.get("quant_method", "an unknown method")
        said = f"its files hold quantised weights ({kind!s:.40}): counted as if they were not"
        shape = replace(shape, notes=(*shape.notes, said))
    return shape


def stored_adapter(name: str) -> tuple[Parameter, ...] | None:
    """The weights of the adapter in a directory, or in the ``final_model`` of a run's; None where there is none yet.

    Read from the header of the safetensors file, whose format is https://github.com/huggingface/safetensors#format:
    eight bytes with the length of the JSON behind them.

    Raises:
        UsageProblem: a file that cannot be read or is no safetensors file.
    """
    folder = user_path(name)
    found = [path for path in (folder / FILE, folder / "final_model" / FILE) if is_file(path)]
    if not found:
        return None
    try:
        with found[0].open("rb") as file:
            header = json.loads(file.read(min(int.from_bytes(file.read(8), "little"), LONGEST)))
        shapes = {key: tuple(map(int, entry["shape"])) for key, entry in header.items() if key != "__metadata__"}
    except (OSError, ValueError, RecursionError, TypeError, KeyError, AttributeError) as e:
        raise UsageProblem(f"{found[0]} cannot be read: {e}", hint="name another adapter, or train it again") from e
    return tuple(
        Parameter(key, size, _part(key), ".lora_A." in key or ".lora_B." in key) for key, size in shapes.items()
    )


def _part(name: str) -> PartName:
    """The part of a model that a weight of an adapter belongs to, by its name."""
    return next((part for word, part in _PARTS.items() if word in name), "mlp")


def _from_folder(name: str, folder: Path, head: HeadName | None) -> Shape:
    path = folder / "config.json"
    if not is_file(path):
        raise UsageProblem(
            f"model {name}: the directory has no config.json",
            hint="an adapter: name its base model here, and it in model.adapter_name_or_path"
            if is_file(folder / "adapter_config.json")
            else "name the directory that save_pretrained or hf download wrote",
        )
    return from_config(_read(path), name, str(path), head)


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(text_of(path))
    except (ValueError, RecursionError) as e:
        raise UsageProblem(f"{path} is no JSON: {e}", hint="fetch or save the model again") from e
    if not isinstance(values, dict):
        raise UsageProblem(f"{path} is no model's config", hint="fetch or save the model again")
    return values


def _cached(name: str, hub_home: str | None, revision: str | None) -> Path | None:
    """The config.json of a model in the cache of huggingface_hub.

    Layout: https://huggingface.co/docs/huggingface_hub/guides/manage-cache
    """
    if name.count("/") > 1 or "\\" in name or ".." in name:
        return None
    for cache in _caches(hub_home):
        model = cache / f"models--{name.replace('/', '--')}"
        commit = revision or "main"
        ref = model / "refs" / commit
        if is_file(ref):
            commit = text_of(ref).strip()
        path = model / "snapshots" / commit / "config.json"
        if is_file(path):
            return path
    return None


def _caches(hub_home: str | None) -> list[Path]:
    """Where models may be, as huggingface_hub reads the environment (its constants.py)."""
    found = [user_path(hub_home) / "hub"] if hub_home else []
    own = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    home = os.environ.get("HF_HOME") or f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    return [*found, user_path(own) if own else user_path(home) / "hub"]


def _unknown(name: str) -> NotFound:
    near = catalogue.nearest(name)
    return NotFound(
        f"nothing is known of the model {name}: no such directory, not in the hub's cache, not shipped",
        hint=f"nearest shipped: {', '.join(near)}" if near else "fetch it with hf download, or name its directory",
    )
