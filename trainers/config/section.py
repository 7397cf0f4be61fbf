"""What all sections of the configuration share, and the kinds of values in them."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict
from pydantic.fields import FieldInfo


class Section(BaseModel):
    """A part of the configuration. Unknown keys are errors; values do not change after reading."""

    # Of all stages a command needs one; to build the validators of the others takes as long as all the rest of it.
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), defer_build=True)


def section_of(info: FieldInfo) -> type[BaseModel] | None:
    """The section that a field is; None for one that takes a value."""
    for candidate in (info.annotation, *get_args(info.annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


@cache
def keys(model: type[BaseModel]) -> tuple[str, ...]:
    """All dotted keys of a model: sections and leaves."""
    found = []
    for name, info in model.model_fields.items():
        inner = section_of(info)
        found += [name, *(f"{name}.{key}" for key in (keys(inner) if inner else ()))]
    return tuple(found)


def _one_or_many(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


OneOrMany = BeforeValidator(_one_or_many)
"""Lets one string stand for a list of one."""

Names = Annotated[list[str], OneOrMany]
"""A list of strings, or one string for a list of one."""


def _none_or_many(value: Any) -> Any:
    return [] if value in (None, "none") else _one_or_many(value)


NoneOrMany = BeforeValidator(_none_or_many)
"""Lets ``none`` stand for an empty list, and one string for a list of one."""


def _one_line(text: str) -> str:
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise ValueError("line breaks and control characters cannot stand here")
    return text


Line = Annotated[str, AfterValidator(_one_line)]
"""Text without line breaks and control characters."""


def _steps(count: int) -> int:
    if count == 0:
        raise ValueError("0 steps train nothing: give a number of steps, or -1 for num_train_epochs")
    return count


Steps = Annotated[int, AfterValidator(_steps)]
"""A number of optimiser steps; -1 where epochs decide."""
