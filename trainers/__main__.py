"""``python -m trainers RUN_DIR/run.yaml``: run one attempt of a training run in this process.

Everything is written below RUN_DIR. Exit code: 0 finished, 85 saved to be continued, 2 the configuration,
the data or the model cannot be used, anything else a failure.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from pathlib import Path

from pydantic import ValidationError

from trainers.config import RunConfig, explain, parse
from trainers.errors import InputProblem, RunProblem, TrainerError
from trainers.run import Run, execute
from trainers.runtime.processes import check_processes
from trainers.runtime.progress import Progress
from trainers.runtime.stopping import Stop


def main(arguments: list[str]) -> int:
    """Run ``run.yaml`` and return the exit code."""
    if len(arguments) != 1:
        print("usage: python -m trainers RUN_DIR/run.yaml", file=sys.stderr)
        return 2
    path = Path(arguments[0]).absolute()
    first = os.environ.get("RANK", "0") == "0"
    attempt = int(os.environ.get("CLUSTERCTL_ATTEMPT") or 1)
    stop = Stop(path.parent)
    stop.listen()
    try:
        if not path.is_file():
            raise InputProblem(f"{path}: no such file", hint="name the run.yaml of a run directory")
        run = Run(path.parent, attempt, Progress(path.parent / "progress.json", attempt, writes=first), stop)
        return _attempt(path, run, first=first)
    except TrainerError as e:
        # All processes find the same fault in the input: once is enough.
        if first or not isinstance(e, InputProblem):
            print(f"error: {e.message}\nhint: {e.hint}", file=sys.stderr)
        return e.exit_code
    except KeyboardInterrupt:
        if first:
            print(
                "error: interrupted\nhint: the last complete checkpoint is kept; start it again to go on",
                file=sys.stderr,
            )
        return 130


def _attempt(path: Path, run: Run, *, first: bool) -> int:
    """Read the configuration, train, and leave the last word in ``progress.json`` whatever happens."""
    from trainers.runtime.log import set_up

    done = False
    try:
        set_up(run.folder, first=first)
        run.progress.update(phase="starting")
        config = read_run(path)
        check_processes(config)
        # TRL would report every start over the network.
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        code = execute(config, run)
        done = True
        return code
    except OSError as e:
        if e.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        where = e.filename or run.folder
        raise RunProblem(f"{where}: {e.strerror}", hint="make room or correct the permissions, then resume") from e
    finally:
        if not done:
            error = sys.exception()
            words = str(error).strip().splitlines() or [""]
            named = words[0] if isinstance(error, TrainerError) else f"{type(error).__name__}: {words[0]}".rstrip(": ")
            # Where the disk is full this cannot be written, and the error itself matters more.
            with contextlib.suppress(OSError):
                run.progress.update(phase="failed", error=named)


def read_run(path: Path) -> RunConfig:
    """The configuration in ``run.yaml``. Raises InputProblem with every error in it."""
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        return parse(values)
    except ValidationError as e:
        problems = "\nerror: ".join(f"{path.name}: {line}" for line in explain(e, values))
        raise InputProblem(problems, hint="docs/recipe-fields.md lists every key") from None
    except yaml.YAMLError as e:
        raise InputProblem(
            f"{path.name}: not valid YAML: {' '.join(str(e).split())}", hint="correct the file"
        ) from None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
