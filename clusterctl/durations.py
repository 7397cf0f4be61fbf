"""Slurm's way to write a time limit, to and from seconds."""

from __future__ import annotations

import re

_TIME = re.compile(
    r"(?:(?P<days>\d+)-(?P<dh>\d{1,2})(?::(?P<dm>\d{1,2})(?::(?P<ds>\d{1,2}))?)?"
    r"|(?:(?P<h>\d+):)?(?P<m>\d+):(?P<s>\d{1,2})"
    r"|(?P<minutes>\d+))"
)


def seconds(text: str) -> int:
    """Seconds of a time as sbatch(1) reads it: ``M``, ``M:S``, ``H:M:S``, ``D-H``, ``D-H:M``, ``D-H:M:S``.

    Raises:
        ValueError: it is none of these, or nothing is left of it.
    """
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no time: write D-HH:MM:SS, HH:MM:SS or minutes")
    part = {name: int(value) for name, value in match.groupdict(default="0").items()}
    total = (
        part["days"] * 86400
        + (part["dh"] + part["h"]) * 3600
        + (part["dm"] + part["m"] + part["minutes"]) * 60
        + part["ds"]
        + part["s"]
    )
    if total == 0:
        raise ValueError("a time limit of nothing: give at least one second")
    return total


def slurm_time(total: int) -> str:
    """``D-HH:MM:SS``, the one form that cannot be misread (a bare number would be minutes)."""
    days, rest = divmod(total, 86400)
    hours, rest = divmod(rest, 3600)
    return f"{days}-{hours:02}:{rest // 60:02}:{rest % 60:02}"


def words(total: float) -> str:
    """A duration for people, two units at most: ``3d 4h``, ``2h 05m``, ``4m 10s``, ``9s``."""
    left = max(0, round(total))
    days, rest = divmod(left, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, secs = divmod(rest, 60)
    if days:
        return f"{days}d {hours}h"
    if hours:
        return f"{hours}h {minutes:02}m"
    if minutes:
        return f"{minutes}m {secs:02}s"
    return f"{secs}s"
