"""One finding, and the findings of one place."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, cast, get_args

State = Literal["ok", "warn", "fail", "unknown", "skipped"]


@dataclass(frozen=True)
class Check:
    """One line of evidence, and one of what to do for everything that is not ok. Never holds a secret.

    ``host`` is set where a job looked. ``value`` is a number behind the evidence: for ``clock`` the seconds by which
    a machine is ahead of the file system.
    """

    name: str
    state: State
    evidence: str
    remedy: str = ""
    host: str = ""
    value: float | None = None


@dataclass(frozen=True)
class Section:
    """What was found in one place, named in words."""

    title: str
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class Report:
    """All sections of an examination."""

    sections: tuple[Section, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many checks there are of each state."""
        states = [check.state for section in self.sections for check in section.checks]
        return {state: states.count(state) for state in get_args(State)}

    @property
    def exit_code(self) -> int:
        """1 where a check failed; 3 where the job that was to look gave no answer; else 0, warnings too."""
        checks = [check for section in self.sections for check in section.checks]
        if any(check.state == "fail" for check in checks):
            return 1
        return 3 if any(check.name == "job" and check.state == "unknown" for check in checks) else 0


def parse(values: object, host: str) -> Check | None:
    """A check as ``trainers.doctor`` writes it; None for anything else, as a newer version may write."""
    if not isinstance(values, dict) or values.get("state") not in get_args(State):
        return None
    value = values.get("value")
    return Check(
        name=str(values.get("name", "")),
        state=cast(State, values["state"]),
        evidence=str(values.get("evidence", "")),
        remedy=str(values.get("remedy", "")),
        host=host,
        value=float(value) if isinstance(value, (int, float)) else None,
    )


def together(checks: tuple[Check, ...]) -> tuple[Check, ...]:
    """The checks of several hosts by name: one that is the same everywhere stands once, with no host.

    Measurements that are ok everywhere count as the same; the first host's stands for all.
    """
    by_name: dict[str, list[Check]] = {}
    for check in checks:
        by_name.setdefault(check.name, []).append(check)
    found: list[Check] = []
    hosts = {check.host for check in checks if check.host}
    for same in by_name.values():
        everywhere = {check.host for check in same} == hosts and len(same) == len(hosts)
        alike = len({(c.state, c.remedy, "" if c.state == "ok" else c.evidence) for c in same}) == 1
        found += [replace(same[0], host="")] if everywhere and alike else same
    return tuple(found)
