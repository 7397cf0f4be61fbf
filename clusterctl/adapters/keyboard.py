"""A key without Enter, on a terminal that is given back as it was."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def quit_key() -> Iterator[Callable[[float], bool]]:
    """A function that waits so many seconds and returns False, or returns True as soon as q is pressed.

    Without a terminal, or in the background, it only waits. SIGTERM and SIGHUP end the block as Ctrl-C does, so that
    the terminal is put right after them too.
    """
    with _ends_in_order(), _without_enter() as keyboard:
        yield lambda seconds: _pressed(keyboard, seconds)


@contextlib.contextmanager
def _without_enter() -> Iterator[int | None]:
    """The terminal's descriptor, in a mode where keys come at once and are not shown; None where there is none."""
    try:
        keyboard = sys.stdin.fileno()
        before = termios.tcgetattr(keyboard)
        ours = os.tcgetpgrp(keyboard) == os.getpgrp()  # from the background we would be stopped
    except (OSError, ValueError, AttributeError, termios.error):
        yield None
        return
    if not ours:
        yield None
        return
    try:
        tty.setcbreak(keyboard, termios.TCSADRAIN)
        yield keyboard
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


def _pressed(keyboard: int | None, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if keyboard is None:
            time.sleep(left)
        elif select.select([keyboard], [], [], left)[0]:
            key = os.read(keyboard, 64)
            if not key:  # the terminal has gone
                return True
            if b"q" in key.lower():
                return True
    return False


@contextlib.contextmanager
def _ends_in_order() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}

    def leave(number: int, _: Any) -> None:
        raise SystemExit(128 + number)

    for number, handler in before.items():
        if handler is signal.SIG_DFL:  # nohup's SIG_IGN stays
            signal.signal(number, leave)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
