"""Every command of the documents is run, in order, as a reader would: only the Python that trains is a stand-in."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.documents import DOCUMENTS, ROOT, Block, Command, blocks, commands
from tests.fake_nvml.build import fake_nvml_env
from tests.unit.conftest import Answer

Cli = Callable[..., Answer]

TRANSLATION = ROOT / "README.zh-CN.md"
WALKED = [path for path in DOCUMENTS if path != TRANSLATION and any(c.words[0] == "clusterctl" for c in commands(path))]

STAND_IN = """#!{python}
# Everything but the trainer itself is the real thing, the guard too.
import json, os, re, sys, time
from pathlib import Path

if sys.argv[-3:-1] != ["-m", "trainers"]:
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
run_dir = Path(sys.argv[-1]).parent
print("the stand-in trains", flush=True)
while Path({hold!r}).exists() and not (run_dir / "stop").exists():
    time.sleep(0.02)
said = int(re.search(r"max_steps: (-?[0-9]+)", (run_dir / "run.yaml").read_text())[1])
steps = said if said > 0 else 60
stopped = (run_dir / "stop").exists()
(run_dir / "final_model").mkdir(exist_ok=True)
(run_dir / "final_model" / "adapter_config.json").write_text("{{}}")
(run_dir / "training_metrics.json").write_text(json.dumps({{"steps": steps, "epochs": 1.0}}))
(run_dir / "progress.json").write_text(json.dumps({{
    "schema": 1, "phase": "saved" if stopped else "finished", "attempt": int(os.environ["CLUSTERCTL_ATTEMPT"]),
    "step": 1 if stopped else steps, "max_steps": steps, "loss": 1.5, "tokens_per_second": 300.0,
    "seconds_per_step": 1.6, "peak_memory": 2**30, "device": "cpu", "updated_at": time.time(), "error": None,
}}))
sys.exit(85 if stopped else 0)
"""


@dataclass
class Reader:
    """Types what a document says. Runs that are not followed stay as they are: ``hold`` keeps them running."""

    cli: Cli
    folder: Path
    env: dict[str, str]
    hold: Path

    def read(self, document: Path) -> None:
        """Go through a document from top to bottom."""
        answer = None
        for block in blocks(document):
            if block.language == "yaml" and block.file_name:
                (self.folder / block.file_name).write_text(block.text, encoding="utf-8")
            elif block.language == "console":
                for command in block.commands():
                    answer = self.type(command) or answer
            elif block.language == "json":
                assert answer, "JSON without a command before it"
                same_keys(json.loads(block.text), json.loads(answer.out.splitlines()[-1]))

    def type(self, command: Command) -> Answer | None:
        """Run one command, and see that it does what is said; None when it is another program's."""
        program, *words = command.words
        if program != "clusterctl":
            return None
        answer = self._answer(words, command.code)
        assert answer.code == command.code, f"{command.words}: {answer}"
        for line in command.output:
            if line.startswith(("error:", "hint:")):
                assert line in answer.err, command.words
        return answer

    def _answer(self, words: list[str], code: int) -> Answer:
        waits_for_the_end = words[0] in ("test", "run") or {"-f", "--follow"} & set(words)
        if waits_for_the_end:
            self.hold.unlink()
        answer = self.cli(*words, **self.env)
        deadline = time.monotonic() + 20
        # A reader is slower than the run that has just been submitted.
        while words[0] == "tail" and answer.code == 6 != code and time.monotonic() < deadline:
            answer = self.cli(*words, **self.env)
        if waits_for_the_end:
            self.hold.touch()
        return answer


def same_keys(documented: Any, real: Any, where: str = "") -> None:
    """The same keys at every depth; of lists the first entries are compared."""
    if isinstance(documented, dict) and isinstance(real, dict):
        assert list(documented) == list(real), where
        for key in documented:
            same_keys(documented[key], real[key], f"{where}.{key}")
    elif isinstance(documented, list) and isinstance(real, list):
        for one, other in zip(documented[:1], real[:1], strict=False):
            same_keys(one, other, f"{where}[0]")
    else:
        assert not isinstance(documented, (dict, list)), f"{where} is {real!r}"


@pytest.fixture
def reader(cli: Cli, folder: Path, home: dict[str, str], tmp_path: Path) -> Iterator[Reader]:
    """A folder as a checkout is after ``make demo``."""
    (folder / "examples").symlink_to(ROOT / "examples")
    model = folder / "models" / "SmolLM2-135M-Instruct"
    model.mkdir(parents=True)
    (model / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    hold, python = tmp_path / "hold", tmp_path / "python"
    python.write_text(STAND_IN.format(python=sys.executable, hold=str(hold)), encoding="utf-8")
    python.chmod(0o755)
    site = Path(home["HOME"]) / ".config" / "clusterctl" / "clusterctl.yaml"
    site.parent.mkdir(parents=True)
    site.write_text(f"environment: {{kind: python, path: {python}}}\n", encoding="utf-8")
    hold.touch()
    yield Reader(cli, folder, fake_nvml_env(tmp_path), hold)
    hold.unlink()
    for run in cli("status", "--all", "--json").json["data"]["runs"]:
        if not run["gone"]:
            cli("cancel", run["record"]["run_id"])


@pytest.mark.parametrize("document", WALKED, ids=lambda path: path.name)
def test_every_command_does_what_the_document_says(reader: Reader, document: Path) -> None:
    reader.read(document)


def test_these_documents_have_commands() -> None:
    assert {"README.md", "first-run.md", "recipes-and-profiles.md", "site-file.md", "runs.md"} <= {
        path.name for path in WALKED
    }


def test_both_readmes_have_the_same_commands() -> None:
    assert [c.words for c in commands(ROOT / "README.md")] == [c.words for c in commands(TRANSLATION)]


def test_a_document_that_is_wrong_is_found(reader: Reader) -> None:
    wrong = [
        "$ clusterctl status --wach\n",
        "$ clusterctl submit sfft\n",
        "$ clusterctl status\n$ echo $?\n1\n",
        "$ clusterctl submit sfft\nhint:  did you mean full?\n$ echo $?\n2\n",
    ]
    for text in wrong:
        [command] = Block("console", text).commands()
        with pytest.raises(AssertionError):
            reader.type(command)
    with pytest.raises(AssertionError):
        same_keys({"data": {"runs": [{"id": 1}]}}, {"data": {"runs": [{"run_id": 1}]}})
