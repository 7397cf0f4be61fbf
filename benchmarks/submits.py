"""A thousand submissions while slurmctld is stopped, hung and woken at random: no job twice, none lost.

    python benchmarks/submits.py [--count 1000] [--workers 6] [--seed 5] [--save]

Slurm is real and thrown away afterwards. Exit code 1 when a job is there twice, missing, or without its record.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.slurm.box import Box  # noqa: E402
from tests.slurm.forked_cli import cli  # noqa: E402
from tests.slurm.stand_in import make_stand_in_project  # noqa: E402
from tests.slurm.submitting import check, settle, submit_all  # noqa: E402


def main() -> int:
    """Submit, settle, check, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=6)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--save", action="store_true")
    args = parser.parse_args()
    box = Box()
    with tempfile.TemporaryDirectory() as folder:
        try:
            box.up()
            project = make_stand_in_project(Path(folder) / "a'; echo foo", box)
            box.command("scontrol", "update", "NodeName=cpu-1", "State=DRAIN", "Reason=jobs shall wait")
            began = time.monotonic()
            done = submit_all(box, project, args.count, workers=args.workers, dice=random.Random(args.seed), cli=cli)
            seconds = time.monotonic() - began
            never = settle(project, wait=True)
            try:
                check(box, project, done.wanted)
                verdict = "none lost, no job twice, no record without its job, no job without its record"
            except AssertionError as e:
                verdict = f"WRONG: {e}"
        finally:
            box.down()
    rows = [
        ("runs wanted", args.count), ("terminals", args.workers), ("seconds", round(seconds)),
        ("slurmctld stopped and started", done.stops), ("slurmctld hung for up to 15 s", done.hangs),
        *sorted(done.answers.items()), ("of the lost answers, resumed as never arrived", never), ("verdict", verdict),
    ]  # fmt: skip
    text = "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])
    print(text)
    if args.save:
        path = ROOT / f"benchmarks/results/submits-{time.strftime('%Y-%m-%d')}.md"
        head = f"# Submitting while slurmctld comes and goes\n\n{os.cpu_count()} cores, seed {args.seed}.\n\n"
        path.write_text(f"{head}{text}\n", encoding="utf-8")
    return 1 if verdict.startswith("WRONG") else 0


if __name__ == "__main__":
    sys.exit(main())
