"""Pipelines: what one member hands to the next, and what cannot be handed on. Drafted, not run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from clusterctl.errors import UsageProblem
from clusterctl.runs.draft import Draft, draft
from clusterctl.runs.request import Request
from clusterctl.settings import Settings

DATA = {"cpt": "texts.jsonl", "mlm": "texts.jsonl", "sft": "data.csv", "dpo": "pairs.jsonl", "reward": "pairs.jsonl"}
Drafted = Callable[..., list[Draft]]


@pytest.fixture
def drafted(folder: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch) -> Drafted:
    """Draft a pipeline of these members. There is a recipe for every stage, by its name and ``.yaml``."""
    monkeypatch.chdir(folder)
    (folder / "texts.jsonl").write_text(json.dumps({"text": "One night."}) + "\n", encoding="utf-8")
    pair = {"prompt": "Who?", "chosen": "Player 1", "rejected": "Player 2"}
    (folder / "pairs.jsonl").write_text(json.dumps(pair) + "\n", encoding="utf-8")
    for stage, data in DATA.items():
        values = {"stage": stage, "model": {"model_name_or_path": f"own/{stage}"}, "data": {"train_files": data}}
        (folder / f"{stage}.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")

    def make(*members: dict[str, Any] | str, sets: tuple[str, ...] = (), beside: str = "", **asked: Any) -> list[Draft]:
        text = yaml.safe_dump({"pipeline": [_named(member) for member in members]})
        (folder / "line.yaml").write_text(text + beside, encoding="utf-8")
        return draft(Request("line.yaml", sets=sets, scheduler="local", **asked), Settings({}, {}))

    return make


def _named(member: dict[str, Any] | str) -> dict[str, Any]:
    own = {"recipe": member} if isinstance(member, str) else member
    return {**own, "recipe": f"{own['recipe']}.yaml"}


def model(one: Draft) -> Any:
    return one.composed.config.model


def saved_by(one: Draft) -> str:
    return str(Path("logs").absolute() / one.run_id / "final_model")


def test_an_adapter_goes_through_all_stages_on_the_first_ones_base(drafted: Drafted) -> None:
    cpt, sft, dpo = drafted("cpt", "sft", "dpo", sets=("model.model_name_or_path=./tiny",))
    base = str(Path("tiny").absolute())
    assert [model(one).model_name_or_path for one in (cpt, sft, dpo)] == [base, base, base]
    assert model(cpt).adapter_name_or_path is None
    assert model(sft).adapter_name_or_path == saved_by(cpt)
    assert model(dpo).adapter_name_or_path == saved_by(sft)
    assert sft.composed.origins["model.adapter_name_or_path"] == "pipeline, after cpt"


def test_what_an_adapter_does_not_carry_goes_with_it(drafted: Drafted) -> None:
    said = {
        "model.revision": "v2",
        "model.trust_remote_code": True,
        "model.rope_theta": 5e5,
        "model.rope_free_layers": [1],
        "model.rope_scaling": {"rope_type": "linear", "factor": 2.0},
    }
    cpt, sft, dpo = drafted(
        {"recipe": "cpt", "set": said},
        {"recipe": "sft", "set": {"model.chat_template": "qwen2_chatml"}},
        {"recipe": "dpo", "set": {"model.revision": "other"}},
    )
    for one in (sft, dpo):
        for key in said:
            name = key.removeprefix("model.")
            assert getattr(model(one), name) == getattr(model(cpt), name), key
    assert (model(sft).chat_template, model(dpo).chat_template) == ("qwen2_chatml", "qwen2_chatml")


def test_after_all_weights_the_saved_model_is_the_next_ones_base(drafted: Drafted) -> None:
    whole = ("model.adapter=none",)
    cpt, sft, dpo = drafted("cpt", "sft", "dpo", sets=(*whole, "model.rope_theta=5e5"))
    assert [model(one).model_name_or_path for one in (cpt, sft, dpo)] == ["own/cpt", saved_by(cpt), saved_by(sft)]
    assert {model(one).adapter_name_or_path for one in (cpt, sft, dpo)} == {None}
    # A new adapter on it, which then goes on.
    cpt, sft, dpo = drafted({"recipe": "cpt", "set": {"model.adapter": "none"}}, "sft", "dpo")
    assert (model(sft).model_name_or_path, model(sft).adapter_name_or_path) == (saved_by(cpt), None)
    assert (model(dpo).model_name_or_path, model(dpo).adapter_name_or_path) == (saved_by(cpt), saved_by(sft))


def test_another_start_than_the_one_before(drafted: Drafted) -> None:
    sft, _, dpo = drafted(
        "sft",
        {"recipe": "reward", "name": "judge", "starts_from": "none"},
        {"recipe": "dpo", "starts_from": "sft"},
    )
    assert model(dpo).adapter_name_or_path == saved_by(sft)
    _, own = drafted("cpt", {"recipe": "sft", "starts_from": "none"})
    assert (model(own).model_name_or_path, model(own).adapter_name_or_path) == ("own/sft", None)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        (["cpt", {"recipe": "sft", "set": {"model.adapter": "none"}}], "would have to be merged first"),
        (["sft", "reward"], "takes no adapter of a model that writes"),
        (["reward", "sft"], "reward model, which rates answers"),
        (["mlm", "sft"], "an encoder, which only mlm"),
        (["sft", "mlm"], "mlm trains an encoder"),
        (["sft", "sft"], "two members are called sft"),
        (["sft", {"recipe": "dpo", "starts_from": "stf"}], "starts from 'stf', which is not before it"),
        (["sft", {"recipe": "dpo", "set": {"model.model_name_or_path": "a/b"}}], "but starts from sft"),
        (["sft", "line"], "cannot stand inside another"),
        (["sft", {"recipe": "dpo", "form": "sft"}], "unknown key form"),
    ],
)
def test_what_cannot_follow_is_refused(drafted: Drafted, members: list[Any], words: str) -> None:
    with pytest.raises(UsageProblem, match=words):
        drafted(*members)


def test_who_decides_a_value_of_a_member(drafted: Drafted, folder: Path) -> None:
    for number in (1, 2, 3):
        text = f"cpus_per_task: {number}\nset: {{optim.learning_rate: {number}e-3}}\n"
        (folder / f"p{number}.yaml").write_text(text, encoding="utf-8")
    members = (
        {"recipe": "cpt"},
        {"recipe": "sft", "profile": "./p2.yaml", "set": {"optim.learning_rate": 4e-3, "optim.seed": 7}},
    )
    cpt, sft = drafted(*members, beside="profile: ./p1.yaml\n")
    assert [one.composed.profile.cpus_per_task for one in (cpt, sft)] == [1, 2]
    assert [one.composed.config.optim.learning_rate for one in (cpt, sft)] == [1e-3, 4e-3]
    cpt, sft = drafted(*members, profile="./p3.yaml", sets=("optim.seed=9",), name="night")
    assert [one.composed.profile.cpus_per_task for one in (cpt, sft)] == [3, 3]
    assert [one.composed.config.optim.seed for one in (cpt, sft)] == [9, 9]
    assert [one.composed.config.name for one in (cpt, sft)] == ["night-cpt", "night-sft"]


def test_set_goes_to_the_members_that_know_the_key(drafted: Drafted) -> None:
    sft, dpo = drafted("sft", "dpo", sets=("method.beta=0.3", "optim.seed=7"))
    assert (dpo.composed.config.method.beta, dpo.composed.config.optim.seed) == (0.3, 7)
    assert sft.composed.config.optim.seed == 7
    with pytest.raises(UsageProblem, match=r"no member of line has such a key"):
        drafted("sft", "dpo", sets=("method.betta=0.3",))


def test_a_test_of_a_pipeline_names_the_same_configurations_as_its_full_run(drafted: Drafted) -> None:
    whole = ("model.adapter=none",)
    full = [one.fingerprint for one in drafted("cpt", "sft", "dpo", sets=whole)]
    assert [one.fingerprint for one in drafted("cpt", "sft", "dpo", sets=whole, kind="test")] == full
    assert full != [one.fingerprint for one in drafted("cpt", "sft", "dpo")]


def test_engine_is_a_short_form_for_one_stage(drafted: Drafted) -> None:
    with pytest.raises(UsageProblem, match="line is a pipeline"):
        drafted("sft", "dpo", engine="verl")
    with pytest.raises(UsageProblem, match=r"engine: input should be 'trl', not 'verl'.*--set engine"):
        draft(Request("sft.yaml", scheduler="local", engine="verl"), Settings({}, {}))
    Path("prompts.jsonl").write_text('{"prompt": "Who?", "answer": "Player 1"}\n', encoding="utf-8")
    text = (
        "stage: grpo\nmodel: {model_name_or_path: ./tiny}\ndata: {train_files: prompts.jsonl}\n"
        "method: {reward_functions: exact_match, num_generations: 4}\n"
    )
    Path("grpo.yaml").write_text(text, encoding="utf-8")
    [one] = draft(
        Request("grpo.yaml", profile="a800-1", scheduler="slurm", engine="verl", force_start=True), Settings({}, {})
    )
    assert one.composed.config.engine == "verl"
