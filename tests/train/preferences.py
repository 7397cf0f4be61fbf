"""What the tests of stages on preferences share: pairs with a rule to learn, and several runs in one process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.tiny import ROLES
from tests.train.conftest import environment

RUN_ALL = """
import json, sys
from pathlib import Path
from trainers.__main__ import main
codes = Path(sys.argv[1])
codes.write_text(json.dumps([main([run]) for run in sys.argv[2:]]))
"""


def pairs(count: int, first: int = 0) -> list[dict[str, str]]:
    """Questions with an answer that says something, which is chosen, and one that does not."""
    return [
        {
            "prompt": f"Player {number} is the {ROLES[number % 5]}. What is player {number}?",
            "chosen": f"Player {number} is a {ROLES[number % 5]}.",
            "rejected": f"What is the player {number}? Is player {number} a player?",
        }
        for number in range(first, first + count)
    ]


def run_all(*runs: Path) -> str:
    """Do runs one after the other, so that the libraries are loaded once; all have to end well. Their log."""
    codes = runs[0].parent / "codes.json"
    argv = [sys.executable, "-c", RUN_ALL, str(codes), *map(str, runs)]
    done = subprocess.run(argv, env=environment(), capture_output=True, text=True, check=False, timeout=300)
    ended = json.loads(codes.read_text()) if codes.exists() else None
    assert ended == [0] * len(runs), done.stderr
    return done.stdout


def points(run_dir: Path, rows: str) -> list[dict[str, Any]]:
    """The points of reward_kl_tracker.json that are about these rows."""
    content = json.loads((run_dir / "reward_kl_tracker.json").read_text(encoding="utf-8"))
    assert content["schema"] == 1
    return [point for point in content["points"] if point["rows"] == rows]
