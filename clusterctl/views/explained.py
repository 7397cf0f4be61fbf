"""What a person sees of a key of a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trainers.config import STAGES
from trainers.config.fields import REQUIRED, Leaf

BY_THE_RECIPE = "the recipe; over it the `set` of a profile named on the command line, then --set"
"""Who decides a key that nobody else does."""


def entries(stages: Mapping[str, Sequence[Leaf]]) -> list[dict[str, Any]]:
    """The leaves of all stages, each once, with the stages in which they are just so."""
    found: dict[Leaf, list[str]] = {}
    for stage, leaves in stages.items():
        for leaf in leaves:
            found.setdefault(leaf, []).append(stage)
    order = {key: place for place, key in enumerate(dict.fromkeys(leaf.key for leaf in found))}
    return [
        {
            "key": leaf.key,
            "values": leaf.values,
            "default": None if leaf.default == REQUIRED else leaf.default,
            "required": leaf.default == REQUIRED,
            "meaning": leaf.meaning,
            "stages": names,
        }
        for leaf, names in sorted(found.items(), key=lambda item: order[item[0].key])
    ]


def view(data: Mapping[str, Any], *, section: bool) -> Any:
    """One key as a paragraph, a section as a table."""
    if section:
        return _table(data)
    lines = [f"{data['key']}: {data['meaning']}"]
    for entry in data["entries"]:
        lines += ["", f"  values   {entry['values']}", f"  default  {_default(entry)}", f"  stages   {_stages(entry)}"]
        if entry["meaning"] != data["meaning"]:
            lines.append(f"  meaning  {entry['meaning']}")
    return "\n".join([*lines, "", f"  decided by {data['decided_by']}"]) + "\n"


def _default(entry: Mapping[str, Any]) -> str:
    return "none: it is required" if entry["required"] else entry["default"] or "empty"


def _stages(entry: Mapping[str, Any]) -> str:
    return "all" if list(entry["stages"]) == list(STAGES) else ", ".join(entry["stages"])


def _table(data: Mapping[str, Any]) -> Any:
    from rich.console import Group
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("KEY", "VALUES", "DEFAULT", "STAGES", "MEANING"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "KEY")
    for entry in data["entries"]:
        default = "required" if entry["required"] else entry["default"]
        table.add_row(entry["key"], entry["values"], default, _stages(entry), entry["meaning"])
    return Group(f"{data['key']}: {data['meaning']}\n", table)
