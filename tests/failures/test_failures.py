"""The table of causes against a corpus of logs, each under the name of the cause that it shows."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

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
