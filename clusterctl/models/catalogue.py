"""Configurations of common models, shipped for work without the hub.

``catalogue.json`` has the entries that decide a model's sizes, as the config.json of each on the hub says them, once
for all names that share them; a name's number is its ``max_position_embeddings``. The tests build every one with
transformers' class, and compare totals with those that the models' pages give.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("catalogue.json")


@cache
def _models() -> dict[str, dict[str, Any]]:
    """Hub name: what its config.json says."""
    found: dict[str, dict[str, Any]] = {}
    for entry in json.loads(FILE.read_text(encoding="utf-8"))["models"]:
        for name, positions in entry["names"].items():
            found[name] = _with_positions(entry["config"], positions)
    return found


def _with_positions(config: dict[str, Any], positions: int) -> dict[str, Any]:
    if "text_config" in config:
        return config | {"text_config": _with_positions(config["text_config"], positions)}
    return config | {"max_position_embeddings": positions}


def names() -> tuple[str, ...]:
    """All hub names that are shipped."""
    return tuple(_models())


def find(name: str) -> dict[str, Any] | None:
    """The configuration of a model on the hub, None where it is not shipped."""
    return _models().get(name)


def nearest(name: str, count: int = 3) -> tuple[str, ...]:
    """Shipped names that are like this one, the nearest first."""
    from difflib import get_close_matches

    lower = {other.lower(): other for other in _models()}
    return tuple(lower[near] for near in get_close_matches(name.lower(), lower, n=count, cutoff=0.6))
