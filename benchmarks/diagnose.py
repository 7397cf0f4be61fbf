"""Diagnosis of one long log against `grep -c Error` in the same file: the ratio of times, and memory.

    python benchmarks/diagnose.py             print the table; exit code 1 when a target is missed
    python benchmarks/diagnose.py --save      also write it to benchmarks/results/diagnose-YYYY-MM-DD.md

The log is made for the purpose: progress lines, warnings that repeat, stack traces that training survived, requeues,
and at its end a CUDA out-of-memory error. It is read once before, so that disks do not count; medians of alternating
rounds. Whole processes are timed, Python's start included.

The reference is the search for `Error`, which is what one types. How long grep takes depends on the word: long words
of rare letters let it skip most of the file, so the search for `out of memory` is shown beside it.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CLUSTERCTL = Path(sys.executable).with_name("clusterctl")
TARGET = 3.0
"""Times the reference."""
REFERENCE = "grep -c Error"
MORE_MEMORY = 1.25
"""So many times the memory of a log of a hundredth of the size: constant, but for noise."""

WARNING = "UserWarning: None of the inputs have requires_grad=True. Gradients will be None\n"
SURVIVED = """\
Traceback (most recent call last):
  File "/opt/env/lib/python3.11/site-packages/tracker/uploader.py", line 71, in send
    raise ConnectionError("HTTPSConnectionPool: Read timed out. (read timeout=20)")
ConnectionError: HTTPSConnectionPool: Read timed out. (read timeout=20)
"""
BANNER = "=== attempt {} · job 4711 · gpu-a800-1 · 2026-11-23 10:00:00 +0000 ===\n"
END = """\
Traceback (most recent call last):
  File "/opt/env/lib/python3.11/site-packages/trainers/run.py", line 88, in main
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 39.39 GiB
"""


@dataclass(frozen=True)
class Ran:
    """One command: seconds, and the largest memory of its processes in bytes."""

    seconds: float
    memory: int


def write_log(path: Path, size: int) -> None:
    """A log of about so many bytes, from a short piece: a process starts with the memory of the one that makes it."""
    dice = random.Random(1)
    block = []
    for step in range(1, 10_001):
        block.append(f"step {step}/900000  loss {dice.uniform(0.5, 2):.4f}  grad_norm {dice.uniform(0.1, 2):.3f}\n")
        if step % 50 == 0:
            block.append(WARNING)
        if step % 5000 == 0:
            block.append(SURVIVED)
    text = "".join(block).encode()
    with path.open("wb") as log:
        for number in range(max(1, size // len(text))):
            if number % 1000 == 0:
                log.write(BANNER.format(number // 1000 + 1).encode())
            log.write(text)
        log.write(END.encode())


def run(argv: Sequence[str | Path], expected: str) -> Ran:
    """Run to its end. AssertionError where the answer is not the expected one."""
    began = time.monotonic()
    child = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert child.stdout is not None
    out = child.stdout.read()
    _, _, usage = os.wait4(child.pid, 0)
    child.returncode = 0  # waited for already
    assert expected in out, out
    # ru_maxrss has the largest of the process and of those that it waited for, in KiB (getrusage(2)).
    return Ran(time.monotonic() - began, usage.ru_maxrss * 1024)


def measure(folder: Path, size: int, rounds: int) -> tuple[dict[str, list[Ran]], int]:
    """Alternating rounds of both commands on a log of this size; the size that it really has."""
    log = folder / f"{size}.log"
    write_log(log, size)
    commands: dict[str, tuple[list[str | Path], str]] = {
        REFERENCE: (["grep", "-c", "Error", log], ""),
        "grep -c 'out of memory'": (["grep", "-c", "out of memory", log], "1"),
        "clusterctl diagnose": ([CLUSTERCTL, "diagnose", log], "out of memory"),
    }
    found: dict[str, list[Ran]] = {name: [] for name in commands}
    for _ in range(rounds + 1):
        for name, (argv, expected) in commands.items():
            found[name].append(run(argv, expected))
    true_size = log.stat().st_size
    log.unlink()
    return {name: runs[1:] for name, runs in found.items()}, true_size  # the first ones warm up


def table(title: str, found: dict[str, list[Ran]]) -> tuple[str, float, int]:
    """Rows in Markdown, the ratio of the medians, and the largest memory of diagnose."""
    seconds = {name: statistics.median(one.seconds for one in runs) for name, runs in found.items()}
    memory = {name: max(one.memory for one in runs) for name, runs in found.items()}
    ratio = seconds["clusterctl diagnose"] / seconds[REFERENCE]
    lines = [f"## {title}", "", f"| command | s | / `{REFERENCE}` | MiB |", "| --- | ---: | ---: | ---: |"]
    for name in found:
        lines.append(
            f"| {name} | {seconds[name]:.2f} | {seconds[name] / seconds[REFERENCE]:.2f} | {memory[name] / 2**20:.0f} |"
        )
    return "\n".join(lines), ratio, memory["clusterctl diagnose"]


def main() -> None:
    """Measure, print, and say whether the targets are met."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--gigabytes", type=float, default=2.0)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--save", action="store_true")
    args = options.parse_args()
    size, load = int(args.gigabytes * 1e9), os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        small, _ = measure(Path(folder), size // 100, args.rounds)
        large, true_size = measure(Path(folder), size, args.rounds)
    _, _, before = table("", small)
    rows, ratio, memory = table(f"A log of {true_size / 1e9:.2f} GB", large)
    said = (
        f"- below {TARGET:.0f} times `{REFERENCE}`: {ratio:.2f}, {'met' if ratio < TARGET else 'MISSED'}\n"
        f"- constant memory: {memory / 2**20:.0f} MiB, of a log of a hundredth of the size {before / 2**20:.0f} MiB, "
        f"{'met' if memory < MORE_MEMORY * before else 'MISSED'}"
    )
    setting = f"{os.cpu_count()} cores, Python {platform.python_version()}, load average {load:.1f} before. Medians of "
    text = (
        f"# Diagnosis, {date.today()}\n\n{setting}{args.rounds} alternating rounds.\n\n{rows}\n\n## Targets\n\n{said}\n"
    )
    print(text)
    if args.save:
        (ROOT / f"benchmarks/results/diagnose-{date.today()}.md").write_text(text, encoding="utf-8")
    sys.exit(0 if ratio < TARGET and memory < MORE_MEMORY * before else 1)


if __name__ == "__main__":
    main()
