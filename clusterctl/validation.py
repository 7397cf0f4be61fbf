"""Turning pydantic's errors into ours: all at once, where each stands, and the nearest valid name."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from clusterctl.errors import UsageProblem
from trainers.config.section import keys

M = TypeVar("M", bound=BaseModel)


def validate(model: type[M], values: dict[str, Any], where: Callable[[str], str], *, what: str) -> M:
    """``model`` made of ``values``; ``where`` says for a dotted key where its value came from.

    Raises:
        UsageProblem: one line for each error.
    """
    try:
        return model.model_validate(values)
    except ValidationError as e:
        lines = [_line(model, error, where) for error in e.errors(include_url=False)]
    count = "" if len(lines) == 1 else f" ({len(lines)} errors)"
    joined = "\n  ".join(dict.fromkeys(lines))
    raise UsageProblem(f"{what}{count}: {joined}", hint="correct what is named above; nothing was submitted")


def nearest(key: str, known: list[str]) -> str:
    """`` - did you mean X?`` for a misspelled key, by its whole path or by its last word; or nothing."""
    known = [k for k in known if not key.startswith(f"{k}.")]  # the section that it stands in is no answer
    last = key.rsplit(".", 1)[-1]
    same_leaf = [k for k in known if k.rsplit(".", 1)[-1] == last and k != key]
    near = (
        same_leaf
        or [k for k in difflib.get_close_matches(key, known, n=3, cutoff=0.6) if _alike(k.rsplit(".", 1)[-1], last)]
        or [k for k in known if difflib.get_close_matches(last, [k.rsplit(".", 1)[-1]], cutoff=0.7)]
    )
    return f" - did you mean {near[0]}?" if near else ""


def _alike(one: str, other: str) -> bool:
    return difflib.SequenceMatcher(None, one, other).ratio() >= 0.5


def of_other_stages(key: str) -> str:
    """`` - it belongs to stage X`` for a key of the section ``method`` that other stages have, or nothing."""
    if not key.startswith("method."):
        return ""
    from trainers.config.fields import look_up

    found = look_up(key)
    return f" - it belongs to stage {', '.join(found.stages)}" if found else ""


def _line(model: type[BaseModel], error: Any, where: Callable[[str], str]) -> str:
    dotted = ".".join(str(part) for part in error["loc"])
    origin = f" [{where(dotted)}]" if dotted else ""
    match error["type"]:
        case "extra_forbidden":
            return f"unknown key {dotted}{origin}{of_other_stages(dotted) or nearest(dotted, list(keys(model)))}"
        case "model_type" | "dict_type":
            return f"{dotted}: keys with values are wanted, {{key: value}}, not {error.get('input')!r:.80}{origin}"
        case "missing":
            return f"{dotted} is missing{origin.replace(' [default]', '')}"
        case "value_error":
            text = str(error["ctx"]["error"])
            return f"{dotted}: {text}{origin}" if dotted else text
        case _:
            text = error["msg"][:1].lower() + error["msg"][1:]
            given = error.get("input")
            shown = f", not {given!r:.80}" if isinstance(given, (str, int, float, bool)) or given is None else ""
            return f"{dotted}: {text}{shown}{origin}"
