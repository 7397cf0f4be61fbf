"""Which values of a configuration somebody said, and who."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from clusterctl.compose import Composed
from trainers.config.section import section_of


@dataclass(frozen=True)
class Value:
    """A value that is not the default, and who said it."""

    key: str
    value: Any
    origin: str


def said(composed: Composed) -> list[Value]:
    """What somebody said, and is not the default."""
    found = []
    for key, origin in composed.origins.items():
        if key in ("name", "kind", "stage"):
            continue
        value, default = _at(composed.config, key), _default(type(composed.config), key)
        if value != default:
            found.append(Value(key, value, origin))
    return found


def _at(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = config.get(part) if isinstance(config, dict) else getattr(config, part, None)
    return config.model_dump(mode="json") if hasattr(config, "model_dump") else config


def _default(schema: Any, key: str) -> Any:
    *sections, name = key.split(".")
    for part in sections:
        field = schema.model_fields.get(part)
        schema = section_of(field) if field else None
        if schema is None:
            return None
    field = schema.model_fields.get(name)
    return field.get_default() if field else None
