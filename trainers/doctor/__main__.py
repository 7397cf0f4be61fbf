"""Run the checks one after the other; each is one line of JSON on standard output as soon as it is known."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

from trainers.doctor import driver, files, machine, network
from trainers.doctor.check import Asked, Check

LIMIT = 60.0
"""Seconds for one check: a dead file server or GPU can hang it for ever."""

Look = Callable[[Asked], Iterable[Check]]

MACHINE: tuple[Look, ...] = (*machine.CHECKS, driver.check_driver, *files.CHECKS, network.check_hub)


def main(arguments: list[str]) -> int:
    """Answer what ASKED.json asks; returns 0 whatever was found, 2 when it cannot be read."""
    try:
        [name] = arguments
        values = json.loads(Path(name).read_text(encoding="utf-8"))
        asked = Asked(**{**values, "parts": tuple(values["parts"]), "needs": tuple(values["needs"])})
    except (OSError, ValueError, KeyError, TypeError) as e:
        print(f"usage: python -m trainers.doctor ASKED.json ({e})", file=sys.stderr)
        return 2
    looks: list[tuple[Look, float]] = [(look, LIMIT) for look in MACHINE if "machine" in asked.parts]
    if "training" in asked.parts:
        from trainers.doctor import communication, training

        looks += [(look, 3 * LIMIT) for look in training.CHECKS]  # the first import over a network file system
        looks.append((communication.check_communication, communication.IMPORTING + asked.patience + LIMIT))
    for look, limit in looks:
        for check in within(look, asked, limit):
            _say({"check": asdict(check)})
    _say({"done": True})
    sys.stdout.flush()
    # A check that hangs, on its thread, must not keep the job.
    os._exit(0)


def within(look: Look, asked: Asked, limit: float) -> list[Check]:
    """What a check finds within so many seconds. Whatever it raises, or its silence, is ``unknown``."""
    found: list[Check] = []
    name = look.__name__.removeprefix("check_").replace("_", " ")

    def run() -> None:
        try:
            found.extend(look(asked))
        # A check that breaks must not hide those after it, and what a broken environment raises can be anything.
        except BaseException as e:  # noqa: BLE001
            said = (str(e).strip().splitlines() or [""])[-1][:200]
            found.append(Check(name, "unknown", f"{type(e).__name__}: {said}", "this check itself broke: report it"))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(limit)
    if thread.is_alive():
        return [
            *found,
            Check(name, "unknown", f"no answer within {limit:.0f} s", "a file server, the driver or a network hangs"),
        ]
    return found


def _say(what: dict[str, object]) -> None:
    host = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    print(json.dumps({"doctor": 1, "host": host, **what}), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
