"""What the layers of a configuration say: nested values, where each comes from, and how strong that layer is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from clusterctl import yaml_text
from clusterctl.errors import UsageProblem
from clusterctl.plan.agree import Said

SET_HINT = "write --set section.key=value, for example --set optim.learning_rate=5e-5 or --set profile.time=2:00:00"


@dataclass
class Layers:
    """Nested values with the origin of every leaf; later ``put`` calls win. ``rank`` numbers the layers."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    ranks: dict[str, int] = field(default_factory=dict)
    rank: int = 0

    def put(self, dotted: str, value: Any, origin: str) -> None:
        """Say a value. Raises UsageProblem where a section would stand inside a value."""
        *sections, leaf = dotted.split(".")
        target = self.values
        for depth, section in enumerate(sections, start=1):
            inner = target.setdefault(section, {})
            if not isinstance(inner, dict):
                at = ".".join(sections[:depth])
                raise UsageProblem(f"{self.where(at)}: {at} is a section, not a value", hint=f"write {at}.<key>")
            target = inner
        target[leaf] = value
        self.origins[dotted] = origin
        self.ranks[dotted] = self.rank

    def said(self, dotted: str) -> Said | None:
        """A value that some layer put, with its strength."""
        if dotted not in self.ranks:
            return None
        value: Any = self.values
        for part in dotted.split("."):
            value = value[part] if isinstance(value, dict) and part in value else None
        return Said(value, self.ranks[dotted], self.origins[dotted])

    def where(self, dotted: str) -> str:
        """The origin of a key, else of what encloses it, else of the first thing said inside it."""
        parts = dotted.split(".")
        for length in range(len(parts), 0, -1):
            if found := self.origins.get(".".join(parts[:length])):
                return found
        inside = (origin for key, origin in self.origins.items() if key.startswith(f"{dotted}."))
        return next(inside, "default")


def parse_sets(sets: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Key and value of each ``key=value``. Raises UsageProblem for what is none."""
    for item in sets:
        key, equals, value = item.partition("=")
        if not equals or not key.strip():
            raise UsageProblem(f"--set {item!r} is not key=value", hint=SET_HINT)
        yield key.strip(), yaml_text.scalar(value)


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of nested ones; the mapping of columns is a value."""
    for key, value in values.items():
        if isinstance(value, dict) and value and prefix + str(key) != "data.columns":
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
