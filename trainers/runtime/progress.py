"""``progress.json``: what the run does right now, for ``clusterctl status``. Standard library only."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from trainers.runtime.files import write_json

INTERVAL = 1.0
"""Seconds between two writes while nothing but numbers changes."""


class Progress:
    """The state of one attempt, replaced atomically on disk. Only the first process of a run writes."""

    def __init__(self, path: Path, attempt: int, *, writes: bool) -> None:
        self._path = path
        self._writes = writes
        self._written_at = 0.0
        self._state: dict[str, Any] = {
            "phase": "starting",
            "attempt": attempt,
            "step": 0,
            "max_steps": None,
            "loss": None,
            "tokens_per_second": None,
            "seconds_per_step": None,
            "peak_memory": None,
            "device": None,
            "error": None,
        }

    def update(self, **changes: Any) -> None:
        """Take over changes; write at once when the phase changes, else at most once a second."""
        turned = changes.get("phase", self._state["phase"]) != self._state["phase"]
        self._state |= changes
        now = time.time()
        if self._writes and (turned or not self._written_at or now - self._written_at >= INTERVAL):
            self._written_at = now
            write_json(self._path, {**self._state, "updated_at": now})
