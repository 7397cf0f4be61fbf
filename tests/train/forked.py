"""``python -m trainers`` without its ten seconds of imports: in a process forked from one that has them already.

Each run is a process of its own, with its own environment, signals and exit code, from the first line of main on.
What a launcher starts, and what is to be killed, is started as users start it.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

LOADED = ["torch", "transformers", "trl", "peft", "datasets", "accelerate", "trainers.__main__"]
STAGES = [f"trainers.stages.{name}" for name in ("sft", "cpt", "mlm", "dpo", "kto", "reward", "grpo")]

_context = multiprocessing.get_context("forkserver")


def run(arguments: list[str], environment: dict[str, str], out: Path, err: Path, timeout: float) -> int:
    """Run ``trainers.__main__.main`` with this environment; its output goes to two files. Returns the exit code."""
    _context.set_forkserver_preload([*LOADED, *STAGES])
    with mock.patch.dict(os.environ, {**environment, "DS_ACCELERATOR": "cpu"}, clear=True):
        forkserver.ensure_running()
    process = _context.Process(target=_main, args=(arguments, environment, str(out), str(err)))
    process.start()
    process.join(timeout)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise TimeoutError(f"{arguments} did not end in {timeout:g} s")
    return process.exitcode


def _main(arguments: list[str], environment: dict[str, str], out: str, err: str) -> None:
    os.environ.clear()
    os.environ.update(environment)
    for path, stream in ((out, sys.stdout), (err, sys.stderr)):
        stream.flush()
        with Path(path).open("ab") as file:
            os.dup2(file.fileno(), stream.fileno())
    from trainers.__main__ import main

    sys.exit(main(arguments))
