"""Many terminals that look at runs at the same time, and what that costs Slurm."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from clusterctl.commands.status import WATCH_EVERY
from tests.project import CLUSTERCTL, Project, Run
from tests.slurm.client import fake_command
from tests.slurm.stand_in import with_commands

COMMANDS = ("sbatch", "squeue", "sacct", "scancel", "sinfo", "scontrol")
BUCKET, REFILL = 30, 2
"""What Slurm's rate limit grants one user by default: so many requests at once, and so many a second (slurm.conf(5),
rl_bucket_size and rl_refill_rate of SlurmctldParameters)."""


@dataclass(frozen=True)
class Figures:
    """``calls``: Slurm's commands by name. ``seconds``: while all sat there; ``written``: bytes on their screens."""

    terminals: int
    seconds: float
    calls: Counter[str]
    written: list[int]

    @property
    def squeue_budget(self) -> int:
        """One answer serves all for as long as `status --watch` waits between two looks."""
        return int(self.seconds / WATCH_EVERY) + 2

    @property
    def within_budget(self) -> bool:
        """Our own rule, and Slurm's rate limit for all commands together."""
        return self.calls["squeue"] <= self.squeue_budget and self.calls.total() <= BUCKET + REFILL * self.seconds


def sit(project: Project, runs: list[Run], terminals: int, seconds: float, folder: Path) -> Figures:
    """Let half of the terminals run ``status --watch``, the others ``tail -f``, for so long; then Ctrl-C in all."""
    folder.mkdir()
    log = folder / "calls"
    log.touch()
    for name in COMMANDS:
        fake_command(folder, name, f'echo {name} >> "{log}"\nexec "$REAL" "$@"')
    user = with_commands(replace(project, env={**project.env, "XDG_CACHE_HOME": str(folder), "TERM": "xterm"}), folder)
    opened = []
    for number in range(terminals):
        run = runs[number // 2 % len(runs)]
        words = ["status", "--watch"] if number % 2 else ["tail", "-f", run.run_id]
        opened.append(_open(user, words))
    began = time.monotonic()
    written = dict.fromkeys((screen for _, screen in opened), 0)
    while (left := began + seconds - time.monotonic()) > 0:
        for screen in select.select(list(written), [], [], left)[0]:
            written[screen] += len(os.read(screen, 65536))
    alive = [process.poll() is None for process, _ in opened]
    lasted, calls = time.monotonic() - began, Counter(log.read_text().split())
    for process, screen in opened:
        process.send_signal(signal.SIGINT)
        _drain(process, screen)
    assert all(alive), "a terminal ended by itself"
    return Figures(terminals, lasted, calls, list(written.values()))


def _open(user: Project, words: list[str]) -> tuple[subprocess.Popen[bytes], int]:
    screen, inside = pty.openpty()
    process = subprocess.Popen(
        [CLUSTERCTL, *words], cwd=user.folder, env=user.env, stdin=inside, stdout=inside, stderr=inside,
        start_new_session=True,
    )  # fmt: skip
    os.close(inside)
    return process, screen


def _drain(process: subprocess.Popen[bytes], screen: int) -> None:
    """Read to the end, or the process could not write its last words."""
    deadline = time.monotonic() + 60
    try:
        while time.monotonic() < deadline and os.read(screen, 65536):
            pass
    except OSError:  # EIO: the other side is closed
        pass
    process.wait(timeout=60)
    os.close(screen)
