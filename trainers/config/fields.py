"""The schema in words: what a key means, which values it takes, what it is when nobody says it, in which stages.

``clusterctl recipes explain KEY`` and docs/recipe-fields.md are made of this.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from trainers.config import STAGES, of_stage
from trainers.config.section import keys, section_of

REQUIRED = "required"
"""What stands for the default of a key that has none."""

_PLAIN = {str: "text", int: "integer", float: "number", bool: "true, false"}
_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


@dataclass(frozen=True)
class Leaf:
    """A key that takes a value: its dotted name, allowed values, default as YAML has it, and meaning."""

    key: str
    values: str
    default: str
    meaning: str


@dataclass(frozen=True)
class Key:
    """A key as a user asks for it: its ``meaning`` and, by stage, the leaf that it is; for a section those in it."""

    key: str
    meaning: str
    section: bool
    stages: dict[str, tuple[Leaf, ...]]


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[Leaf]:
    """Every key of a schema that takes a value, those of its sections too."""
    for name, info in model.model_fields.items():
        inner = section_of(info)
        if inner is None:
            yield Leaf(prefix + name, values(info), default(info), _meaning(model, name))
        else:
            yield from leaves(inner, f"{prefix}{name}.")


def look_up(key: str) -> Key | None:
    """The key of this dotted name, in all stages that have it; None where there is none."""
    found: dict[str, tuple[Leaf, ...]] = {}
    meaning, is_section = "", False
    for stage in STAGES:
        at = _walk(of_stage(stage), key)
        if at is None:
            continue
        owner, name = at
        info = owner.model_fields[name]
        inner = section_of(info)
        if inner is None:
            found[stage] = (Leaf(key, values(info), default(info), _meaning(owner, name)),)
        else:
            found[stage] = tuple(leaves(inner, f"{key}."))
        is_section = inner is not None
        meaning = meaning or (paragraph(inner) if inner else _meaning(owner, name))
    if key == "method":
        meaning = "What only one stage knows."
    return Key(key, meaning, is_section, found) if found else None


def all_keys() -> list[str]:
    """Every dotted key of every stage: sections and leaves."""
    found: dict[str, None] = {}
    for stage in STAGES:
        found |= dict.fromkeys(keys(of_stage(stage)))
    return list(found)


def paragraph(model: type[BaseModel]) -> str:
    """The docstring of a section in one line."""
    return " ".join((model.__doc__ or "").replace("``", "`").split())


def values(info: FieldInfo) -> str:
    """The values that a field takes: ``integer ≥ 1``, ``text``, or its choices with commas between."""
    return _kind(info.annotation) + _bounds(info.metadata)


def default(info: FieldInfo) -> str:
    """The default as a YAML file has it: nothing for an empty one, ``required`` where there is none."""
    match info.default:
        case value if value is PydanticUndefined:
            return REQUIRED
        case None:
            return ""
        case bool(value):
            return str(value).lower()
        case list(items):
            return f"[{', '.join(map(str, items))}]"
        case float(value):
            return f"{value:g}"
        case value:
            return str(value)


def _walk(schema: type[BaseModel], key: str) -> tuple[type[BaseModel], str] | None:
    """The section that holds the field of a dotted name, and its name there."""
    *sections, name = key.split(".")
    owner: type[BaseModel] | None = schema
    for part in sections:
        info = owner.model_fields.get(part)
        owner = section_of(info) if info else None
        if owner is None:
            return None
    return (owner, name) if name in owner.model_fields else None


def _meaning(model: type[BaseModel], name: str) -> str:
    """What a field says about itself, or where it says nothing, what it said in the class above."""
    said = (base.model_fields[name].description for base in model.__mro__ if name in getattr(base, "model_fields", ()))
    return next((words for words in said if words), "")


def _kind(annotation: Any) -> str:
    match get_origin(annotation):
        case origin if origin is Annotated:
            return _kind(get_args(annotation)[0])
        case origin if origin in (Union, types.UnionType):
            return _kind(next(arg for arg in get_args(annotation) if arg is not type(None)))
        case origin if origin is Literal:
            return ", ".join(str(value) for value in get_args(annotation))
        case origin if origin is list:
            [item] = get_args(annotation)
            return "list" if item is str else f"list of {_kind(item)}"
        case origin if origin is dict:
            return "mapping"
    return _PLAIN.get(annotation, "any")


def _bounds(metadata: list[Any]) -> str:
    found = []
    for part in metadata:
        for name, sign in _BOUNDS.items():
            limit = getattr(part, name, None)
            # One kind of metadata holds a single bound, the other all that Field was given.
            if limit is not None:
                found.append(f"{sign} {limit:g}")
    return f" {', '.join(found)}" if found else ""
