"""What goes with a run that nobody has tested: the planner's estimate, marked as one."""

from __future__ import annotations

from pathlib import Path

import pytest

from clusterctl import settings
from clusterctl.runs import draft, predict
from clusterctl.runs.request import Request

RECIPE = """\
stage: sft
model: {model_name_or_path: Qwen/Qwen2.5-1.5B-Instruct}
data: {train_files: data.csv}
optim: {learning_rate: 1e-4, max_steps: 100}
"""


def test_the_estimate_of_an_untested_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (folder / "data.csv").write_text("prompt,response\n" + "Who is the seer?,Player 3.\n" * 200, encoding="utf-8")
    (folder / "mine.yaml").write_text(RECIPE, encoding="utf-8")
    site = settings.load()

    def expected(profile: str) -> dict[str, object] | None:
        request = Request(recipe="mine.yaml", profile=profile, scheduler="slurm")
        [one] = draft.draft(request, site)
        return predict.prediction(one, folder / "logs")

    a40, a800 = expected("a40-1"), expected("a800-1")
    assert a40 and a800 and a40["estimate"] is True and "from_test" not in a40
    assert 2**30 < float(str(a40["peak_memory"])) < 48 * 2**30
    seconds = float(str(a40["seconds_per_step"]))
    assert float(str(a40["train_seconds"])) >= 100 * seconds > 0
    assert float(str(a800["seconds_per_step"])) <= seconds
    assert expected("cpu") is None, "nothing is known of the speed of a CPU"
