"""Draw ``docs/terminal.svg``: real commands in a scratch folder, as a terminal shows them.

    .venv/bin/python docs/picture.py [MODEL]

MODEL is a directory; by default the one that ``make demo`` fetched. The run trains on this machine for about a
minute. The GPUs are those of ``tests/fake_nvml``, the stand-in for the driver that the tests use.
"""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.fake_nvml.build import A40, A800, fake_nvml_env  # noqa: E402

CLUSTERCTL = Path(sys.executable).with_name("clusterctl")
MODEL = ROOT / "models" / "SmolLM2-135M-Instruct"
WIDTH = 112
ENOUGH_STEPS = 20
PATIENCE = 600.0
"""Seconds until the run has to have made its first steps."""

BUSY = replace(A800, used=61_440, utilization=97, temperature=64, watts=286)
CARDS = (BUSY, BUSY, A800, A800, A40, A40, A40, replace(A40, faults="ecc=3"))


class Terminal:
    """A scratch folder, and what was typed and shown in it."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self._folder = folder
        self._env = dict(env)
        self.screen = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)

    def show(self, *words: str) -> None:
        """Type a command, and keep what it prints."""
        self.screen.print(Text.assemble(("$ ", "bold green"), shlex.join(["clusterctl", *words])))
        self.screen.print(Text.from_ansi(self.run(*words).rstrip("\n")), soft_wrap=True)
        self.screen.print()

    def run(self, *words: str) -> str:
        """Run a command without showing it."""
        done = subprocess.run(
            [CLUSTERCTL, *words], cwd=self._folder, env=self._env, check=True, stdout=subprocess.PIPE, text=True
        )
        return done.stdout

    def wait_for_steps(self, run: str) -> None:
        """Until a run has done some steps."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            [status] = json.loads(self.run("status", run, "--json"))["data"]["runs"]
            if status["progress"]["step"] >= ENOUGH_STEPS:
                return
            time.sleep(2)
        sys.exit(f"{run} did not begin within {PATIENCE:.0f} s: {status['why']}")


def draw(model: Path, scratch: Path) -> Console:
    """Everything that the picture shows."""
    folder = scratch / "project"
    (folder / "models").mkdir(parents=True)
    (folder / "models" / MODEL.name).symlink_to(model)
    (folder / "examples").symlink_to(ROOT / "examples")
    env = {
        "PATH": str(programs(scratch / "bin")),
        "HOME": str(scratch),
        "CLUSTERCTL_SCHEDULER": "local",
        "CLUSTERCTL_LEASE_DIR": str(scratch / "leases"),
        "FORCE_COLOR": "1",
        "COLUMNS": str(WIDTH),
        **fake_nvml_env(scratch, CARDS),
    }
    terminal = Terminal(folder, env)
    terminal.show("submit", "full", "--set", f"model.model_name_or_path=models/{MODEL.name}")
    try:
        terminal.wait_for_steps("basic")
        terminal.show("tail", "basic", "-n", "4")
        terminal.show("status")
    finally:
        terminal.run("cancel", "basic", "sft")
    terminal.show("gpus")
    return terminal.screen


def programs(folder: Path) -> Path:
    """A folder with what job.sh needs and no more: the picture is of a server without Slurm."""
    folder.mkdir()
    for name in ("bash", "env", "stat", "date", "hostname", "dirname"):
        (folder / name).symlink_to(shutil.which(name) or name)
    return folder


def main() -> None:
    model = Path(sys.argv[1]).absolute() if len(sys.argv) > 1 else MODEL
    if not (model / "config.json").is_file():
        sys.exit(f"there is no model in {model}: make demo fetches one")
    with tempfile.TemporaryDirectory() as scratch:
        screen = draw(model, Path(scratch))
    picture = screen.export_svg(title="clusterctl", unique_id="terminal")
    # rich names a font on the web; a picture should ask nobody.
    picture = re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)
    (ROOT / "docs" / "terminal.svg").write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main()
