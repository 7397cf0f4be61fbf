"""The table of causes against a corpus of logs, each under the name of the cause that it shows."""

from __future__ import annotations

import gzip
import os
import random
import re
import resource
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from clusterctl.errors import ClusterctlError
from clusterctl.runs import diagnose
from trainers.failures import CAUSES

CORPUS = Path(__file__).parent
AIM = 0.95
"""Share of the logs whose cause has to be found; a false alarm on a healthy one is never allowed."""


def corpus() -> list[tuple[str, str, str]]:
    """(cause, title, text) of every log of the corpus."""
    logs = []
    for path in sorted(CORPUS.glob("*.log")):
        for part in re.split(r"^@@ ", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
            head, _, text = part.partition("\n")
            cause, _, title = head.partition(": ")
            logs.append((cause, title, text))
    return logs


def found(folder: Path, text: str) -> str:
    """The cause that ``diagnose FILE`` finds in a text."""
    path = folder / "a'; echo foo.log"
    path.write_text(text, encoding="utf-8", newline="")
    return diagnose.file(path).cause


def test_the_corpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs = corpus()
    answers = [(cause, title, found(tmp_path, text)) for cause, title, text in logs]
    wrong = [answer for answer in answers if answer[0] != answer[2]]
    causes, right = Counter(a[0] for a in answers), Counter(a[0] for a in answers if a[0] == a[2])
    with capsys.disabled():
        print("\n" + "\n".join(f"  {cause:22} {right[cause]:3} of {n:3}" for cause, n in sorted(causes.items())))
        print(f"  {'all':22} {right.total():3} of {len(logs):3}")
    assert not [answer for answer in wrong if answer[0] == "healthy"], "false alarms"
    assert right.total() / len(logs) >= AIM, wrong
    assert len(logs) >= 120 and causes["healthy"] >= 40


def test_every_cause_of_the_table_has_a_log() -> None:
    assert set(CAUSES) <= {cause for cause, _, _ in corpus()}


OOM = "Traceback (most recent call last):\n  File 'a.py', line 9\ntorch.OutOfMemoryError: CUDA out of memory.\n"


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (OOM.encode("utf-16"), "UTF-16"),
        (gzip.compress(OOM.encode() * 9), "no plain text"),
        (random.Random(1).randbytes(9000), "no plain text"),
    ],
)
def test_what_cannot_be_searched_is_not_called_healthy(tmp_path: Path, raw: bytes, says: str) -> None:
    (tmp_path / "log").write_bytes(raw)
    with pytest.raises(ClusterctlError, match=says):
        diagnose.file(tmp_path / "log")


def test_a_log_alone_is_never_surely_well(tmp_path: Path) -> None:
    for text, cause in (("", "unknown"), ("step 1/2  loss 2.3\n", "healthy")):
        (tmp_path / "log").write_text(text, encoding="utf-8")
        answer = diagnose.file(tmp_path / "log")
        assert (answer.cause, answer.title) != ("healthy", "nothing wrong") and answer.sure in ("", "a guess")
        assert answer.cause == cause


def test_a_bar_or_a_hole_of_many_bytes_is_no_single_line(tmp_path: Path) -> None:
    """Of which grep would take twice the memory; the error stands within the window at the end."""
    log = tmp_path / "log"
    bars = b"".join(b"\r %d%%|####| %d/900 [00:10<01:30]" % (n % 100, n) for n in range(30_000))
    with log.open("wb") as file:
        file.truncate(200 * 2**20)
        file.seek(0, os.SEEK_END)
        file.write(bars * 9 + OOM.encode() + bars * 9)
    limits = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_AS, (300 * 2**20, 300 * 2**20))}
    code = "import sys, pathlib; from clusterctl.runs import diagnose; print(diagnose.file(pathlib.Path(sys.argv[1])))"
    done = subprocess.run([sys.executable, "-c", code, log], capture_output=True, text=True, **limits)
    assert "cause='cuda_out_of_memory'" in done.stdout and "line=3" in done.stdout, done
    assert not done.stderr  # where grep would say that its memory is exhausted
