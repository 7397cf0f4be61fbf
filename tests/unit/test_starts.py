"""When a run would begin on this machine, and whom Slurm is asked about: never 'now' where nobody knows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clusterctl.adapters.leases import Leases
from clusterctl.model import QueueStart, Resources
from clusterctl.plan.estimates import Fit, Verdict
from clusterctl.plan.rank import Placement
from clusterctl.runs import choose
from tests.fake_nvml.build import A40, A800, Card, fake_nvml_env
from tests.project import Answer

Cli = Callable[..., Answer]
BUSY = replace(A40, used=40_000, processes={1: 40_000})
RECIPE = """\
stage: sft
model: {model_name_or_path: Qwen/Qwen2.5-1.5B-Instruct}
data: {train_files: data.csv}
optim: {max_steps: 100}
"""


@pytest.fixture
def start(cli: Cli, folder: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """The start of a run on a server with these cards, as ``plan`` tells it."""
    (folder / "mine.yaml").write_text(RECIPE, encoding="utf-8")
    (folder / "data.csv").write_text("prompt,response\n" + "Who is it?,Player 3.\n" * 100, encoding="utf-8")

    def plan(cards: list[Card], *options: str, **env: str) -> dict[str, Any]:
        server = fake_nvml_env(tmp_path, cards) | {"CLUSTERCTL_LEASE_DIR": str(tmp_path / "leases")}
        answer = cli("plan", "mine.yaml", *options, "--json", **(server | env))
        assert answer.code == 0, answer.out + answer.err
        return dict(answer.json["data"]["plans"][0])

    return plan


def test_named_cards_start_when_they_are_free_and_not_when_others_are(start: Callable[..., dict[str, Any]]) -> None:
    cards = [BUSY, A40, A40]
    assert start(cards, "--gpu-ids", "1")["wait"] == 0
    waits = start(cards, "--gpu-ids", "0")
    assert waits["wait"] is None and waits["start"]["why"].startswith("0 free of 1; GPU 0 is used")


def test_a_leased_card_is_not_free_before_its_job_computes(
    start: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    leases = Leases(tmp_path / "leases")
    with leases.line():
        leases.sign("sft-1", ["GPU-fa000000-0000-4000-8000-000000000000"])
    waits = start([A40], "--profile", "a40-1")
    assert waits["wait"] is None and waits["start"]["why"] == "0 free of 1"


def test_an_open_profile_starts_on_any_card_that_holds_it(start: Callable[..., dict[str, Any]]) -> None:
    assert start([BUSY, A800], "--profile", "gpu-1")["wait"] == 0


def test_cards_that_cuda_hides_are_not_there(start: Callable[..., dict[str, Any]]) -> None:
    plan = start([A800, A40, A40], CUDA_VISIBLE_DEVICES="1,2")
    kinds = {place["placement"]["gpu_type"] for place in plan["choice"]["places"]}
    assert kinds == {"a40"} and plan["wait"] == 0


def test_slurm_is_asked_about_every_type_before_the_questions_end() -> None:
    """Sixteen kinds of A800 jobs are quicker than any on an A40, but only that starts today."""
    fits = Verdict(Fit.FITS, "")
    fast = [
        (Placement(f"a800-{n}", "a800", n, 1, None, fits, seconds=n), Resources(gpus_per_node=n, gpu_type="a800"))
        for n in range(1, 17)
    ]
    slow = (Placement("a40-1", "a40", 1, 1, None, fits, seconds=100), Resources(gpus_per_node=1, gpu_type="a40"))
    asked: list[str | None] = []

    def answer(wanted: Resources) -> QueueStart:
        asked.append(wanted.gpu_type)
        return QueueStart(0.0)

    found = choose._with_starts([*fast, slow], answer)
    assert len(asked) == choose.QUESTIONS and asked[:2] == ["a800", "a40"]
    assert found[-1].start == QueueStart(0.0)
    unasked = [one for one in found if one.start and one.start.at is None]
    assert len(unasked) == 17 - choose.QUESTIONS and all("were asked" in one.start.why for one in unasked if one.start)
