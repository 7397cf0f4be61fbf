"""Word of how an attempt of a run ended, to whoever asked for it with ``clusterctl submit --notify``.

``notify.json`` of the run directory says where to: a command line or a webhook, which gets one JSON object, a command
on its standard input, a webhook as a POST. No shell reads any of it. Nothing here raises or takes longer than TIMEOUT:
a run does not wait for its messengers. Mail is Slurm's. Standard library only, as the guard uses it.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainers.runtime.files import read_json

FILE = "notify.json"
TIMEOUT = 10.0
"""Seconds after which a messenger is given up, as a job has to end within the grace of its scheduler."""

EVENTS = {"done": "finished", "requeue": "requeued", "stop": "failed"}
"""What a decision of the guard is called; a run that stopped on purpose is ``stopped``."""

_KEY = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL")


def send(run_dir: Path, event: str, **facts: Any) -> str:
    """Send a message, where somebody asked for it. Returns what went wrong in words; empty: nothing.

    Args:
        run_dir: whose ``notify.json`` says where to.
        event: finished, failed, requeued or stopped.
        facts: what else the message says.
    """
    said = read_json(run_dir / FILE)
    to = said.get("to")
    if not isinstance(to, str) or not to:
        return ""
    hidden = [str(name) for name in said.get("hide") or []]
    keys = [v for name, v in os.environ.items() if len(v) >= 8 and (name in hidden or _KEY.search(name.upper()))]
    keys.sort(key=len, reverse=True)  # one may begin with another
    message = _message(run_dir, event, said, facts)
    text = json.dumps({name: _without(value, keys) for name, value in message.items()}, ensure_ascii=False)
    failed: list[str] = ["no answer in time"]
    way = _post if to.startswith(("http://", "https://")) else _tell
    # A look-up of a name knows no time-out, so the messenger is left behind where it does not come back.
    messenger = threading.Thread(target=_try, args=(way, to, text, hidden, failed), daemon=True)
    messenger.start()
    messenger.join(TIMEOUT + 1)
    return f"nobody was told ({event}): {failed[0]}" if failed else ""


def _message(run_dir: Path, event: str, said: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    progress = read_json(run_dir / "progress.json")
    run_id = str(said.get("run_id") or run_dir.name)
    known = {key: progress[key] for key in ("step", "max_steps", "loss") if progress.get(key) is not None}
    # `text` is what Slack, Mattermost and many others show of a message.
    text = f"{run_id} {event}: {facts.get('why') or ''}".rstrip(": ")
    return {"schema": 1, "text": text, "event": event, "run_id": run_id, "name": said.get("name"), **known, **facts}


def _without(value: Any, keys: list[str]) -> Any:
    for key in keys if isinstance(value, str) else ():
        value = value.replace(key, "***")
    return value


def _try(way: Any, to: str, text: str, hidden: list[str], failed: list[str]) -> None:
    try:
        way(to, text, hidden)
        failed.clear()
    except Exception as e:  # noqa: BLE001 - whatever a messenger does, the run goes on
        # Not its words: they may hold the address, which may hold a key.
        failed[:] = [f"{type(e).__name__}{f' {e.code}' if hasattr(e, 'code') else ''}"]


def _post(url: str, text: str, hidden: list[str]) -> None:
    import urllib.request  # here, because it takes longer than all the rest of the guard

    request = urllib.request.Request(  # noqa: S310 - http and https only
        url, text.encode(errors="replace"), {"Content-Type": "application/json", "User-Agent": "clusterctl"}
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT):  # noqa: S310
        pass


def _tell(command: str, text: str, hidden: list[str]) -> None:
    """Run a command without the run's keys; with all that it starts it is killed when its time is up."""
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    program, *words = shlex.split(command)
    process = subprocess.Popen(
        [str(Path(program).expanduser()), *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,  # job.sh reads what the guard says there
        env=environment,
        start_new_session=True,
    )
    try:
        process.communicate(text.encode(errors="replace"), timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    if process.returncode:
        raise ExitCode(process.returncode)


class ExitCode(Exception):
    """A command that failed."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exit code {code}")
        self.code = code
