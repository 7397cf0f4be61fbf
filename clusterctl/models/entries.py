"""Entries of a config.json, checked, with the defaults that transformers gives to what is absent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from clusterctl.errors import UsageProblem

LARGEST = 2**32
MOST_LAYERS = 10_000
"""No size of a model is beyond them; what is, is a broken file."""


@dataclass(frozen=True)
class Entries:
    """A family's view on a config.json.

    Args:
        values: what the file says.
        defaults: what transformers' class of this family takes where the file says nothing.
        spellings: our name of an entry: other names under which files have it.
        source: the file, for messages.
    """

    values: Mapping[str, Any]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    spellings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    source: str = "config.json"

    def get(self, name: str) -> Any:
        """The entry under any of its names, else the default, else None."""
        for spelling in (name, *self.spellings.get(name, ())):
            if self.values.get(spelling) is not None:
                return self.values[spelling]
        return self.defaults.get(name)

    def size(self, name: str, least: int = 1) -> int:
        """A whole number. Raises UsageProblem where there is none, or none that can be meant."""
        return self._whole(name, self.get(name), least)

    def size_or(self, name: str, otherwise: int) -> int:
        """A whole number, or another where nothing is said. Raises UsageProblem for what is no size."""
        return otherwise if self.get(name) is None else self.size(name, 0)

    def sizes(self, name: str) -> tuple[int, ...]:
        """A list of whole numbers, empty where there is none. Raises UsageProblem."""
        found = self.get(name) or []
        if not isinstance(found, list):
            raise self._problem(name, found)
        return tuple(self._whole(name, one, 0) for one in found)

    def flag(self, name: str | bool) -> bool:
        """Whether the entry says yes; a bool is its own answer."""
        return name if isinstance(name, bool) else bool(self.get(name))

    def _whole(self, name: str, found: Any, least: int) -> int:
        most = MOST_LAYERS if name == "num_hidden_layers" else LARGEST
        if isinstance(found, bool) or not isinstance(found, int) or not least <= found <= most:
            raise self._problem(name, found)
        return found

    def _problem(self, name: str, found: Any) -> UsageProblem:
        said = f"has no {name}" if found is None else f"has {name} {found!r:.60}, which is no size"
        return UsageProblem(f"{self.source} {said}", hint="fetch or save the model again, or name another one")
