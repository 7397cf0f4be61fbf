"""The signals that the process behind a local job listens to."""

from __future__ import annotations

import os
import select
import signal
from typing import Any

CANCEL = signal.SIGUSR2
"""Asks a runner to cancel its job. Asking twice does no harm."""


class Signals:
    """Signals as plain data: they interrupt a wait and are remembered, nothing else."""

    def __init__(self) -> None:
        self.cancelled = False
        self.told_to_end = False
        self._woken, wake = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        # A handler for each, so that job.sh starts with none of them ignored, whatever we inherited:
        # bash cannot trap what was ignored when it began.
        for signum in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGCHLD):
            signal.signal(signum, lambda *_: None)
        signal.signal(CANCEL, self._on_cancel)
        signal.signal(signal.SIGTERM, self._on_term)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def wait(self, seconds: float | None) -> None:
        """Sleep until a signal came, but not longer than so many seconds."""
        select.select([self._woken], [], [], None if seconds is None else max(0.0, seconds))
        try:
            os.read(self._woken, 4096)
        except BlockingIOError:
            return

    def _on_cancel(self, *_: Any) -> None:
        self.cancelled = True

    def _on_term(self, *_: Any) -> None:
        self.told_to_end = True
