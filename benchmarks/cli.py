"""Start-up of the command line, and `status` on a long queue, as ratios to bare Python and to Slurm's own squeue.

    python benchmarks/cli.py             print the tables; exit code 1 when a target is missed
    python benchmarks/cli.py --save      also write them to benchmarks/results/cli-YYYY-MM-DD.md

A throw-away Slurm cluster and a fake NVML are real programs on this machine, as in the tests. torchx and submitit run
beside us from an environment of their own, which is made once in .cache/. Medians of alternating rounds.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.fake_nvml.build import fake_nvml_env  # noqa: E402
from tests.project import CLUSTERCTL, Project  # noqa: E402
from tests.slurm.box import Box, until  # noqa: E402
from tests.slurm.stand_in import make_stand_in_project  # noqa: E402

PEERS = ROOT / ".cache/benchmark-peers"
PEER_VERSIONS = ("torchx==0.7.0", "submitit==1.5.4")
JOBS = 10_000
PASS, SQUEUE, LONG_SQUEUE = "python -c pass", "squeue", "squeue -h -o"
SQUEUE_FORMAT = "%i %T %V %S %e %l %u %N %r %Z %k"
"""The fields that `status` asks for, as far as -o has them."""
VERSION, LONG_STATUS = "clusterctl --version", "clusterctl status"
PLAN = "clusterctl plan sft --profile a40-1"
PLAN_OPTIONS = ("--scheduler", "local", "--set", "data.train_files=data.csv", "--set", "data.eval_files=[]")
"""A model of the shipped catalogue, known as one in the hub's cache is: from a config.json."""
VERSION_TARGET, STATUS_TARGET, PLAN_TARGET = 7.0, 3.0, 15.0


@dataclass(frozen=True)
class Case:
    """A command to be timed. ``python`` is the interpreter behind it, where there is one."""

    argv: Sequence[str | Path]
    python: str | Path = ""


@dataclass(frozen=True)
class Bench:
    """Where commands run: the folder, the variables, how many rounds."""

    folder: Path
    env: Mapping[str, str]
    rounds: int

    def seconds(self, cases: Mapping[str, Case]) -> dict[str, float]:
        """The median time of each. In turns, forwards and backwards, so that a busy machine slows all."""
        times: dict[str, list[float]] = {name: [] for name in cases}
        for turn in range(self.rounds + 1):
            for name in list(cases)[:: 1 if turn % 2 else -1]:
                taken = self._once(cases[name])
                if turn:  # the first round fills the caches of Python and of the disk
                    times[name].append(taken)
        return {name: statistics.median(taken) for name, taken in times.items()}

    def modules(self, case: Case) -> int | None:
        """How many modules Python imports for it."""
        if not case.python:
            return None
        argv = case.argv[1:] if case.argv[0] == case.python else case.argv
        done = self._run([case.python, "-X", "importtime", *argv])
        return sum(line.startswith("import time:") for line in done.stderr.splitlines()) - 1

    def _once(self, case: Case) -> float:
        began = time.perf_counter()
        self._run(case.argv)
        return time.perf_counter() - began

    def _run(self, argv: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
        # Never an answer that an earlier call has left behind.
        with tempfile.TemporaryDirectory() as cache:
            env = {**self.env, "XDG_CACHE_HOME": cache}
            done = subprocess.run(argv, cwd=self.folder, env=env, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{argv} failed:\n{done.stdout}\n{done.stderr}")
        return done


def main() -> int:
    """Measure and print; 1 when a target is missed."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, default=15, help="at least 9 for a number that is to be shown")
    options.add_argument("--save", action="store_true", help="write benchmarks/results/cli-YYYY-MM-DD.md")
    args = options.parse_args()
    make_peers()
    box = Box(extra="MaxArraySize=20001")
    with tempfile.TemporaryDirectory() as folder:
        try:
            box.up()
            report, met = measure(box, Path(folder), args.rounds)
        finally:
            box.down()
    print(report)
    if args.save:
        path = ROOT / f"benchmarks/results/cli-{time.strftime('%Y-%m-%d')}.md"
        path.parent.mkdir(exist_ok=True)
        path.write_text(report + "\n", encoding="utf-8")
    return 0 if met else 1


def make_peers() -> None:
    """The environment of the peers."""
    if (PEERS / "complete").exists():
        return
    subprocess.run([sys.executable, "-m", "venv", "--clear", PEERS], check=True)
    subprocess.run([PEERS / "bin/pip", "install", "--quiet", *PEER_VERSIONS], check=True)
    (PEERS / "complete").touch()


def measure(box: Box, folder: Path, rounds: int) -> tuple[str, bool]:
    """The report, and whether every target was met."""
    began = os.getloadavg()[0]
    box.command("scontrol", "update", "NodeName=ALL", "State=DRAIN", "Reason=benchmark")
    project = make_stand_in_project(folder / "project", box)
    # Settings of our own shell would change what Python does at its start: whether it may keep compiled modules.
    kept = {name: value for name, value in project.env.items() if not name.startswith("PYTHON")}
    bench = Bench(project.folder, {**kept, **fake_nvml_env(folder)}, rounds)
    project.submit()

    short = start_up()
    times = bench.seconds(short)
    rows = [
        (
            name,
            f"{1000 * t:.0f}",
            f"{t / times[PASS]:.1f}",
            f"{t / times[SQUEUE]:.1f}",
            bench.modules(short[name]) or "",
        )
        for name, t in times.items()
    ]
    fill_queue(box, project)
    many = bench.seconds(long_queue())
    long_rows = [(name, f"{1000 * t:.0f}", f"{t / many[LONG_SQUEUE]:.2f}") for name, t in many.items()]

    targets = [
        (f"`{VERSION}` / `{PASS}`", times[VERSION] / times[PASS], VERSION_TARGET),
        (f"`{PLAN}` / `{PASS}`", times[PLAN] / times[PASS], PLAN_TARGET),
        (f"`{LONG_STATUS}` / `{LONG_SQUEUE}`, {JOBS} jobs", many[LONG_STATUS] / many[LONG_SQUEUE], STATUS_TARGET),
    ]
    verdicts = [(what, f"{r:.2f}", f"< {limit:g}", "yes" if r < limit else "NO") for what, r, limit in targets]
    parts = [
        f"# Command line, {time.strftime('%Y-%m-%d')}",
        setting(box, rounds, began),
        "## Start-up",
        table(("command", "ms", f"/ `{PASS}`", f"/ `{SQUEUE}`", "modules"), rows),
        f"## {JOBS} pending jobs of this user in the queue, and one run",
        table(("command", "ms", f"/ `{LONG_SQUEUE}`"), long_rows),
        f"The fields of squeue are those that `status` reads, as far as `-o` has them: `{SQUEUE_FORMAT}`.",
        "## Targets",
        table(("ratio", "measured", "target", "met"), verdicts),
    ]
    return "\n\n".join(parts), all(r < limit for _, r, limit in targets)


def start_up() -> dict[str, Case]:
    """Commands that do little: what they cost is their start."""
    ours = {f"clusterctl {word}": Case([CLUSTERCTL, word], sys.executable) for word in ("--version", "--help")}
    asking = {f"clusterctl {word}": Case([CLUSTERCTL, word], sys.executable) for word in ("status", "gpus")}
    python = PEERS / "bin/python"
    torchx = {f"torchx {word}": Case([PEERS / "bin/torchx", word], python) for word in ("--version", "--help")}
    return {
        PASS: Case([sys.executable, "-c", "pass"], sys.executable),
        SQUEUE: Case(["squeue"]),
        **ours,
        **asking,
        PLAN: Case([CLUSTERCTL, *PLAN.split()[1:], *PLAN_OPTIONS], sys.executable),
        **torchx,
        "import submitit": Case([python, "-c", "import submitit"], python),
    }


def long_queue() -> dict[str, Case]:
    """Our table against Slurm's, of the same queue."""
    return {
        LONG_SQUEUE: Case(["squeue", "-h", "-o", SQUEUE_FORMAT]),
        LONG_STATUS: Case([CLUSTERCTL, "status"]),
        f"{LONG_STATUS} --json": Case([CLUSTERCTL, "status", "--json"]),
    }


def fill_queue(box: Box, project: Project) -> None:
    """Pending jobs with a record and a line each; a whole array would be one of both until its tasks begin."""
    tasks = f"--array=0-{JOBS}"
    job = box.command("sbatch", "--parsable", "--mem=10", tasks, "--wrap", "true", cwd=project.folder).stdout.strip()
    box.command("scontrol", "update", f"JobId={job}_[0-{JOBS - 1}]", "Nice=1")
    until(lambda: box.command("squeue", "-h", "-o", "%i").stdout.count("\n") >= JOBS, f"{JOBS} jobs in the queue")


def setting(box: Box, rounds: int, load: float) -> str:
    """Where and how this was measured."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    slurm = box.command("squeue", "--version").stdout.strip()
    return (
        f"{cpu}, {os.cpu_count()} cores, Python {platform.python_version()}, {slurm}, {', '.join(PEER_VERSIONS)}. "
        f"Medians of {rounds} alternating rounds; load average {load:.1f} before, {os.getloadavg()[0]:.1f} after."
    )


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Markdown."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
