"""Writes docs/recipe-fields.md: every key of a recipe, from the schema itself. ``make docs`` runs it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import BaseModel

from clusterctl.compose import DECIDED_ELSEWHERE
from trainers.config import STAGES, RunConfig, of_stage
from trainers.config.fields import REQUIRED, Leaf, leaves, paragraph
from trainers.config.section import section_of

PAGE = Path(__file__).with_name("recipe-fields.md")

HEAD = """\
# Keys of a recipe

Made by `make docs` from the schema in `trainers/config`; not to be edited by hand.
`clusterctl recipes explain KEY` says the same of one key. How recipe, profile and `--set` go together:
[Recipes and profiles](recipes-and-profiles.md).

The sections `model` to `output` are the same in all stages, but for the [defaults](#defaults-of-stages) at the end
of them; `method` holds what [one stage](#method-of-cpt) alone knows. No default means empty.
"""

TOP = (
    Leaf("stage", ", ".join(STAGES), REQUIRED, "What is trained for."),
    Leaf("engine", "trl, verl", "trl", "What trains. verl is for grpo, and all that ppo has."),
)


def page() -> str:
    """The whole text."""
    parts = [HEAD, f"## Stage\n\n{_table(TOP)}"]
    for name, info in RunConfig.model_fields.items():
        section = section_of(info)
        if section:
            said_here = (leaf for leaf in leaves(section, f"{name}.") if leaf.key not in DECIDED_ELSEWHERE)
            parts.append(f"## {name.capitalize()}\n\n{paragraph(section)}\n\n{_table(said_here)}")
    parts.append("## Defaults of stages\n\n" + _differing())
    for stage in STAGES:
        method = section_of(of_stage(stage).model_fields["method"])
        if method:
            parts.append(f"## Method of {stage}\n\n{paragraph(method)}\n\n{_table(leaves(method, 'method.'))}")
    return "\n".join(parts)


def _table(found: Iterable[Leaf]) -> str:
    rows = [f"| `{leaf.key}` | {_values(leaf)} | {_default(leaf)} | {leaf.meaning} |" for leaf in found]
    return "\n".join(["| key | values | default | meaning |", "|---|---|---|---|", *rows]) + "\n"


def _differing() -> str:
    """The defaults in which a stage differs from what the tables above say."""
    common = {leaf.key: leaf for leaf in _common(RunConfig)}
    rows: dict[tuple[str, str], list[str]] = {}
    for stage in STAGES:
        for leaf in _common(of_stage(stage)):
            if leaf.default != common[leaf.key].default:
                rows.setdefault((leaf.key, _default(leaf)), []).append(f"`{stage}`")
    lines = [f"| `{key}` | {', '.join(stages)} | {value} |" for (key, value), stages in rows.items()]
    return "\n".join(["| key of a stage | stages | default |", "|---|---|---|", *lines]) + "\n"


def _common(schema: type[BaseModel]) -> Iterator[Leaf]:
    return (leaf for leaf in leaves(schema) if not leaf.key.startswith("method") and leaf.key != "stage")


def _values(leaf: Leaf) -> str:
    """Choices as code, kinds of values as words."""
    head, many, choices = leaf.values.partition("list of ") if "list of" in leaf.values else ("", "", leaf.values)
    if re.fullmatch(r"(text|integer|number|list|mapping)( .*)?", choices):
        return leaf.values
    return head + many + ", ".join(f"`{choice}`" for choice in choices.split(", "))


def _default(leaf: Leaf) -> str:
    return leaf.default if leaf.default in ("", REQUIRED) else f"`{leaf.default}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE}\n")
