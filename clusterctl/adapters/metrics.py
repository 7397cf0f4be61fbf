"""The lines of ``metrics.jsonl`` that a trainer writes, a few of them or all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

NAME = "metrics.jsonl"
EACH_END = 10 * 1024
"""Bytes of the beginning and of the end that a glance takes: twenty to thirty lines each."""
WHOLE = 32 * 1024**2
"""Bytes that are read of a file at most; beyond, its two ends count."""


def glance(run_dir: Path, each_end: int = EACH_END) -> list[dict[str, Any]]:
    """The first and the last lines, as one story: cheap enough for every run of a table. Never raises."""
    try:
        # Not to wait at a pipe that somebody put there: seeking in one is an error.
        with os.fdopen(os.open(run_dir / NAME, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            if size <= 2 * each_end:
                parts = [file.read(2 * each_end)]
            else:
                first = file.read(each_end)
                file.seek(size - each_end)
                # Both cuts go through a line.
                parts = [first[: first.rfind(b"\n") + 1], file.read(each_end).partition(b"\n")[2]]
    except OSError:
        return []
    return story(line for part in parts for line in _objects(part))


def whole(run_dir: Path) -> list[dict[str, Any]]:
    """All lines as one story. Never raises."""
    return glance(run_dir, WHOLE // 2)


def story(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Where a later attempt did steps again, its lines count. Of a step the line of training comes first.

    As ``history`` in trainers/runtime/records.py, for lines that anybody may have written.
    """
    kept: dict[tuple[int, int], dict[str, Any]] = {}
    attempt = None
    for line in lines:
        step = line.get("step")
        if not isinstance(step, int) or isinstance(step, bool):
            continue
        if line.get("attempt") != attempt:
            attempt = line.get("attempt")
            kept = {place: earlier for place, earlier in kept.items() if place[0] <= step}
        kind = 2 if line.get("result") else "loss" not in line
        kept[step, kind] = line
    return [kept[place] for place in sorted(kept)]


def _objects(text: bytes) -> Iterable[dict[str, Any]]:
    for line in text.splitlines():
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            yield value
