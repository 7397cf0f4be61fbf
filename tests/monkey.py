"""A seeded monkey that does harm to a training run, and holds the run's history against what it did."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.project import Project, Run
from tests.slurm.box import until

SEED = int(os.environ.get("CHAOS_SEED", "20261123"))
ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "0"))
"""So often every fault is done, in another order each time. 0, as in the test suite: the first ``SHORT`` of them."""

SHORT = 4

SAVE_EVERY = 10
STEPS_A_FAULT = 32
PATIENCE = 150.0
DISK = 32 * 2**20
"""Bytes of the small disk on which the run lies."""


def number_of(faults: int) -> int:
    """How many faults are done of so many kinds."""
    return faults * ROUNDS or min(faults, SHORT)


def long_run(faults: int, spare: int = 0) -> list[str]:
    """Options of a training long enough for so many faults, not a multiple of the steps between checkpoints.

    ``spare`` steps are for the faults during which it goes on.
    """
    sets = {
        "optim.max_steps": 53 + STEPS_A_FAULT * number_of(faults) + spare * (ROUNDS or 1),
        "output.save_steps": SAVE_EVERY,
        "output.save_total_limit": 3,
        "profile.signal_lead": 60,
    }
    return [word for key, value in sets.items() for word in ("--set", f"{key}={value}")]


@dataclass
class Monkey:
    """What it does to one run. ``done`` lists the faults with what the run's history calls them."""

    run: Run
    dice: random.Random = field(default_factory=lambda: random.Random(SEED))
    done: list[tuple[str, str]] = field(default_factory=list)

    def play(self, faults: dict[str, Callable[[], str]]) -> None:
        """Do the faults in a random order, each at a random step of a living training."""
        for _ in range(ROUNDS or 1):
            for name in self.dice.sample(sorted(faults), len(faults) if ROUNDS else number_of(len(faults))):
                self.wait_for_a_random_step()
                try:
                    self.done.append((name, faults[name]()))
                except AssertionError as e:
                    raise AssertionError(f"{name}, after {self.done}: {e}\n{self.evidence()}") from e

    # --- the run ------------------------------------------------------------------------------

    def evidence(self) -> str:
        """What is known of the run when a fault did not go as it should."""
        errors = (self.run.run_dir / "logs/job.err").read_text(errors="replace").splitlines()
        return "\n".join([*map(str, self.attempts[-4:]), str(self.project.state(self.run.run_id)), *errors[-20:]])

    @property
    def project(self) -> Project:
        return self.run.project

    @property
    def attempts(self) -> list[dict[str, Any]]:
        """Whole lines of ``attempts.jsonl``; a full disk tears some."""
        found = []
        for line in (self.run.run_dir / "attempts.jsonl").read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return found

    @property
    def begun(self) -> dict[str, Any]:
        """The newest line of an attempt that began."""
        return [line for line in self.attempts if line["event"] == "begin"][-1]

    def wait_for_a_random_step(self) -> None:
        """Wait until the newest attempt has saved once and gone some steps on."""
        until(lambda: (self.run.run_dir / "attempts.jsonl").exists(), "the first attempt", PATIENCE)
        further = SAVE_EVERY + self.dice.randint(1, SAVE_EVERY)

        def there() -> bool:
            now, begun = self._progress(), self.begun
            if now.get("attempt") != begun["attempt"]:  # it has not spoken yet
                return False
            assert now["phase"] not in ("finished", "failed"), f"unexpected end: {now}"
            return now["phase"] in ("training", "saving") and now["step"] >= (begun["checkpoint"] or 0) + further

        until(there, "a random step", PATIENCE)

    def _progress(self) -> dict[str, Any]:
        with contextlib.suppress(OSError, ValueError):
            return dict(json.loads((self.run.run_dir / "progress.json").read_text(encoding="utf-8")))
        return {}

    def wait_for_next(self, before: dict[str, Any]) -> dict[str, Any]:
        """Wait for the attempt after this one; return its line."""
        until(lambda: self.begun["attempt"] > before["attempt"], "the next attempt", PATIENCE)
        return self.begun

    def cause(self, begun: dict[str, Any]) -> str:
        """What the history calls the end of an attempt: its own last word, or what the next one found out."""
        number = begun["attempt"]
        for line in self.attempts:
            if line["event"] == "end" and line["attempt"] == number:
                return str(line.get("cause"))
            if line["event"] == "begin" and line["attempt"] == number + 1:
                return str(line.get("before", {}).get("cause"))
        return "no word of it"

    def called(self, begun: dict[str, Any], *names: str) -> str:
        """Check the name of the end of an attempt."""
        cause = self.cause(begun)
        assert cause in names, f"the history calls it {cause}, not {' or '.join(names)}"
        return cause

    def wait_for_end(self, *states: str) -> dict[str, Any]:
        """Wait until the run has ended in one of these states; return its status."""
        last: dict[str, Any] = {}

        def ended() -> bool:
            nonlocal last
            last = self.project.state(self.run.run_id)
            return last["state"] in states

        until(ended, f"{' or '.join(states)}, last {last}", PATIENCE)
        return last

    def resume(self) -> None:
        """As a person would."""
        answer = self.project.cli("resume", self.run.run_id)
        assert answer.code == 0, answer.out + answer.err

    # --- faults that every scheduler has -------------------------------------------------------

    def kill_rank(self) -> str:
        """SIGKILL to the process that trains, from outside: nothing says why, so it must not go on by itself."""
        begun = self.begun
        os.kill(self.trainer(), signal.SIGKILL)
        self.wait_for_end("FAILED")
        named = self.project.cli("diagnose", self.run.run_id, "--json").json["data"]["cause"]
        assert named == "killed", f"diagnose says {named}"
        self.resume()
        self.wait_for_next(begun)
        return self.called(begun, "killed")

    def cancel(self) -> str:
        """`clusterctl cancel`, and resumed."""
        begun = self.begun
        answer = self.project.cli("cancel", self.run.run_id)
        assert answer.code == 0, answer.out + answer.err
        self.wait_for_end("CANCELLED")
        self.resume()
        self.wait_for_next(begun)
        return self.called(begun, "cancelled")

    def stop_file(self) -> str:
        """The file `stop` by hand, and resumed."""
        begun = self.begun
        (self.run.run_dir / "stop").touch()
        self.wait_for_end("FAILED", "CANCELLED")
        self.resume()
        self.wait_for_next(begun)
        return self.called(begun, "stopped")

    def tear_checkpoint(self, *, marked: bool) -> str:
        """Cut the newest checkpoint, which still calls itself complete or (a killed save) does not."""
        until(lambda: self._complete(), "a complete checkpoint")
        before = self.begun
        frozen = self.trainer()
        os.kill(frozen, signal.SIGSTOP)  # or it would save a newer one meanwhile
        newest = self._complete()[-1]
        if not marked:
            (newest / "COMPLETE").unlink()
        victim = self.dice.choice([p for p in sorted(newest.glob("*")) if p.stat().st_size > 100])
        os.truncate(victim, victim.stat().st_size // 2)
        os.kill(frozen, signal.SIGKILL)
        self.wait_for_end("FAILED")
        self.resume()
        after = self.wait_for_next(before)
        assert newest.name in after.get("torn", []), f"{newest.name} is not called torn: {after}"
        assert (after["checkpoint"] or 0) < int(newest.name.rpartition("-")[2])
        return f"torn: {', '.join(after['torn'])}"

    def _complete(self) -> list[Path]:
        found = (self.run.run_dir / "checkpoints").glob("*/COMPLETE")
        return sorted((mark.parent for mark in found), key=lambda path: int(path.name.rpartition("-")[2]))

    def fill_disk(self) -> str:
        """The disk is full for a while. Without root: no file may grow any more, as with ``ulimit -f``."""
        begun = self.begun
        root = self.run.run_dir.parent
        if root.is_mount():
            ballast = root / ".ballast"
            with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass

            # The local runner cannot record the end before there is room again.
            def known() -> bool:
                now = self.project.state(self.run.run_id)
                return now["state"] == "FAILED" or now["why"].startswith("ending: ")

            until(known, "the full disk to be told", PATIENCE)
            ballast.unlink()
            last = self.wait_for_end("FAILED")
        else:
            pid, size = self.trainer(), (self.run.run_dir / "metrics.jsonl").stat().st_size
            hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size + 100, hard))
            last = self.wait_for_end("FAILED")
        self.resume()
        self.wait_for_next(begun)
        # PyTorch does not say which of the two it was.
        names = ("disk_full",) if root.is_mount() else ("file_size_limit", "disk_full")
        name = self.called(begun, *names)
        assert last["why"], last
        return name

    def trainer(self) -> int:
        """The process that trains: no launcher, no step."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (process / "cmdline").read_bytes().split(b"\0")
                if words[1:3] == [b"-m", b"trainers"] and words[3].startswith(bytes(self.run.run_dir)):
                    found.append(int(process.name))
        assert len(found) == 1, f"trainers of {self.run.run_id}: {found}"
        return found[0]


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A small file system at ``folder`` where this user may mount one; else ``fill_disk`` does it in its other way."""
    folder.mkdir(parents=True)
    argv = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "chaos", str(folder)]
    mounted = not os.environ.get("CHAOS_NO_MOUNT") and subprocess.run(argv, capture_output=True).returncode == 0
    try:
        yield
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def table(title: str, done: list[tuple[str, str]]) -> str:
    """What was done and how the history calls it."""
    return "\n".join([f"\n{title}, seed {SEED}", *(f"  {number + 1:3} {name:44} {cause}"
                      for number, (name, cause) in enumerate(done))])  # fmt: skip
