"""``recipes explain``: what a key means, in every stage that has it."""

from __future__ import annotations

import pytest

from clusterctl.cli import _run
from trainers.config import STAGES
from trainers.config.fields import all_keys, look_up


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = _run(["recipes", "explain", *words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_key_whose_meaning_differs_by_stage(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capsys, "method.beta")
    assert code == 0
    parts = out.split("\n\n")
    assert parts[0] == "method.beta: How much leaving the reference costs."
    assert parts[1].splitlines() == ["  values   number > 0", "  default  0.1", "  stages   dpo, kto"]
    assert "  default  0\n  stages   grpo\n  meaning  Weight of the KL" in out
    decided = "the recipe; over it the `set` of a profile named on the command line, then --set"
    assert parts[-1] == f"  decided by {decided}\n"


def test_one_stage_alone(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = said(capsys, "optim.learning_rate", "--stage", "dpo")
    assert "default  5e-06" in out and "0.0001" not in out
    code, _, err = said(capsys, "method.beta", "--stage", "sft")
    assert (code, err) == (2, "error: stage sft has no method.beta\nhint:  it belongs to dpo, kto, grpo, rloo\n")
    assert "did you mean sft?" in said(capsys, "method", "--stage", "sfft")[2]


def test_a_section_is_a_table_of_its_keys(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")  # no key is ever cut
    _, out, _ = said(capsys, "model.lora")
    rows = [line.split()[0] for line in out.splitlines() if line.startswith("model.lora.")]
    assert rows[:3] == ["model.lora.r", "model.lora.lora_alpha", "model.lora.lora_dropout"]
    _, out, _ = said(capsys, "method", "--stage", "mlm")
    assert "method.mlm_probability" in out and "method.beta" not in out


def test_what_the_profile_decides(capsys: pytest.CaptureFixture[str]) -> None:
    assert "decided by profile.dtype" in said(capsys, "precision.dtype")[1]


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("optim.learning_rte", "did you mean optim.learning_rate?"),
        ("beta", "that is method.beta today"),
        ("data.block_size", "that is data.max_length today"),
        ("zzz", "docs/recipe-fields.md has them all"),
        ("dpo", "clusterctl recipes explain method --stage dpo"),
    ],
)
def test_keys_that_do_not_exist(capsys: pytest.CaptureFixture[str], key: str, hint: str) -> None:
    assert said(capsys, key) == (2, "", f"error: there is no key {key}\nhint:  {hint}\n")


def test_json_has_every_stage(capsys: pytest.CaptureFixture[str]) -> None:
    import json

    _, out, _ = said(capsys, "method.beta", "--json")
    answer = json.loads(out)
    assert (answer["command"], answer["data"]["key"]) == ("recipes explain", "method.beta")
    assert [entry["stages"] for entry in answer["data"]["entries"]] == [["dpo", "kto"], ["grpo"], ["rloo"]]


def test_every_key_can_be_explained() -> None:
    for key in all_keys():
        found = look_up(key)
        assert found and found.meaning.endswith("."), key
        assert set(found.stages) <= set(STAGES)


def test_keys_and_stages_complete() -> None:
    from clusterctl.commands.explain import _keys, _stages

    assert _keys("model.lora.lora") == ["model.lora.lora_alpha", "model.lora.lora_dropout"]
    assert _stages("st") == ["stage1", "stage2"]
