"""``clusterctl`` without the half second of imports, for a thousand commands: forked from a process that has them.

Each command is a process of its own all the same, with its own environment, folder, streams and exit code.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from pathlib import Path

from tests.project import Answer, Project

_LOADED = ["typer", "clusterctl.cli", "clusterctl.app", "clusterctl.commands.submit", "clusterctl.runs.draft",
           "clusterctl.runs.submit", "clusterctl.runs.hardware", "clusterctl.runs.preflight", "clusterctl.runs.predict",
           "clusterctl.adapters.slurm", "trainers.config", "yaml", "jinja2"]  # fmt: skip
_context = multiprocessing.get_context("forkserver")


def cli(project: Project, *words: str, timeout: float) -> Answer:
    """As ``Project.cli``."""
    _context.set_forkserver_preload(_LOADED)
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = _context.Process(target=_main, args=(words, str(project.folder), project.env, str(out), str(err)))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            raise TimeoutError(f"clusterctl {' '.join(words)} did not end in {timeout:g} s")
        # The fork server says 255 where it lost sight of a child: the child itself has noted what it ended with.
        code = Path(folder, "code")
        ended = int(code.read_text(encoding="utf-8")) if code.exists() else process.exitcode
        return Answer(ended, *(p.read_text(encoding="utf-8") if p.exists() else "" for p in (out, err)))


def _main(words: tuple[str, ...], folder: str, environment: dict[str, str], out: str, err: str) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for path, stream in ((out, sys.stdout), (err, sys.stderr)):
        with Path(path).open("ab") as file:
            os.dup2(file.fileno(), stream.fileno())
    sys.argv = ["clusterctl", *words]
    from clusterctl.cli import main

    try:
        main()
    except SystemExit as e:
        Path(out).with_name("code").write_text(str(e.code), encoding="utf-8")
        raise
