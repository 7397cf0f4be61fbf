"""Fifty terminals, half with `status --watch`, half with `tail -f`, for a minute: how often they ask Slurm.

    python benchmarks/terminals.py [--terminals 50] [--seconds 60] [--save]

Exit code 1 when the queries are more than the budget: one squeue in five seconds for all of them, and Slurm's own
rate limit for one user (30 requests at once, then 2 a second) for all commands together.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.slurm.box import Box  # noqa: E402
from tests.slurm.stand_in import finish, make_stand_in_project  # noqa: E402
from tests.slurm.watching import BUCKET, REFILL, sit  # noqa: E402


def main() -> int:
    """Sit, count, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--terminals", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--save", action="store_true")
    args = parser.parse_args()
    box = Box(accounting=True, min_job_age=2, extra="AccountingStoreFlags=job_comment")
    with tempfile.TemporaryDirectory() as folder:
        try:
            box.up()
            project = make_stand_in_project(Path(folder) / "a'; echo foo", box)
            ended, *running = (project.submit() for _ in range(6))
            project.submit("--after", running[0].run_id)
            finish(ended)
            for run in running:
                run.wait_for_step(1)
            seen = sit(project, running, args.terminals, args.seconds, Path(folder) / "commands")
        finally:
            box.down()
    allowed = BUCKET + REFILL * seen.seconds
    rows = [
        ("terminals", seen.terminals, ""), ("seconds", round(seen.seconds), ""),
        ("squeue", seen.calls["squeue"], seen.squeue_budget),
        *((name, seen.calls[name], "") for name in sorted(set(seen.calls) - {"squeue"})),
        ("all commands", seen.calls.total(), round(allowed)),
        ("screens that stayed empty", seen.written.count(0), 0),
    ]  # fmt: skip
    lines = ["| | measured | at most |", "|---|---:|---:|", *(f"| {a} | {b} | {c} |" for a, b, c in rows)]
    text = "\n".join(lines)
    print(text)
    if args.save:
        path = ROOT / f"benchmarks/results/terminals-{time.strftime('%Y-%m-%d')}.md"
        head = f"# What many terminals cost Slurm\n\n{os.cpu_count()} cores; six runs of one user, accounting on.\n\n"
        path.write_text(f"{head}{text}\n", encoding="utf-8")
    return 0 if seen.within_budget and all(seen.written) else 1


if __name__ == "__main__":
    sys.exit(main())
