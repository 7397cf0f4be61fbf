"""recipe + profile + site + overrides -> RunConfig: values arrive in run.yaml as they were written."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from clusterctl import compose, yaml_text
from clusterctl.errors import UsageProblem
from clusterctl.recipe import read_recipe
from clusterctl.schema import Site
from trainers import config

text = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=30).filter(str.strip)
one_line = text.filter(lambda t: all(ord(c) >= 32 and ord(c) != 127 for c in t))


@settings(max_examples=60, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(name=one_line, system=text, project=text, workspace=text, column=text)
def test_hostile_recipe_values_arrive_in_run_yaml(
    name: str, system: str, project: str, workspace: str, column: str
) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "a'; echo foo"
        folder.mkdir()
        data = folder / "data $(x).csv"
        data.write_text("prompt,response\na,b\n", encoding="utf-8")
        values = {
            "stage": "sft",
            "model": {"model_name_or_path": "some/model"},
            "data": {"train_files": str(data), "system": system, "columns": {"prompt": column}},
            "tracking": {"project": project, "swanlab_workspace": workspace},
        }
        path = folder / "recipe.yaml"
        path.write_text(yaml_text.dump(values), encoding="utf-8")
        composed = compose.compose(read_recipe(str(path)), "cpu", Site(), name=name)
        run = folder / "run.yaml"
        run.write_text(yaml_text.dump(composed.config.model_dump(mode="json")), encoding="utf-8")
        arrived = config.load(run)
    assert arrived == composed.config
    assert (arrived.name, arrived.data.system, arrived.tracking.project) == (name, system, project)
    assert arrived.data.columns == {"prompt": column}
    assert arrived.data.train_files == [str(data)]


@pytest.mark.parametrize("text", ["1e100", "1e-4", "010", "12:00:00", "0x1f", "yes", "1_000"])
def test_text_that_looks_like_a_number_stays_text(tmp_path: Path, text: str) -> None:
    (tmp_path / "f.yaml").write_text(yaml_text.dump({"key": text}), encoding="utf-8")
    assert yaml_text.read(tmp_path / "f.yaml").values == {"key": text}


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("12:00:00", "12:00:00"),
        ("1e-4", 1e-4),
        ("5.0e-5", 5e-5),
        ("010", "010"),
        ("true", True),
        ("[1, 2]", [1, 2]),
        ("2026-01-01", "2026-01-01"),
        ("- x: [", "- x: ["),
        ("a: b: c", "a: b: c"),
    ],
)
def test_values_of_set_are_read_as_yaml_without_its_surprises(written: str, read: object) -> None:
    assert yaml_text.scalar(written) == read


def test_every_origin_is_known(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("prompt,response\na,b\n", encoding="utf-8")
    path = tmp_path / "r.yaml"
    path.write_text(
        f"stage: sft\nmodel: {{model_name_or_path: a/b}}\ndata: {{train_files: {tmp_path}/d.csv}}\n", encoding="utf-8"
    )
    site = Site(tracking={"project": "wolves"})
    composed = compose.compose(read_recipe(str(path)), "cpu", site, ["optim.max_steps=5"])
    assert composed.origins["tracking.project"] == "site file"
    assert composed.origins["model.model_name_or_path"] == f"{path}:2"
    assert composed.origins["precision.dtype"] == "profile cpu"
    assert composed.origins["optim.max_steps"] == "--set optim.max_steps"


def test_a_section_in_set_changes_its_own_keys_only(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("prompt,response\na,b\n", encoding="utf-8")
    path = tmp_path / "r.yaml"
    path.write_text(
        f"stage: sft\nmodel: {{model_name_or_path: a/b}}\ndata: {{train_files: {tmp_path}/d.csv}}\n"
        "optim: {learning_rate: 3e-4, num_train_epochs: 7}\n",
        encoding="utf-8",
    )
    profile = tmp_path / "p.yaml"
    profile.write_text("set:\n  optim: {max_steps: 3}\n", encoding="utf-8")
    recipe = read_recipe(str(path))
    optim = compose.compose(recipe, str(profile), Site(), ["optim={weight_decay: 0.5}"]).config.optim
    assert (optim.learning_rate, optim.num_train_epochs, optim.max_steps, optim.weight_decay) == (3e-4, 7, 3, 0.5)
    path.write_text(path.read_text(encoding="utf-8").replace("optim: {", "optim: 5 # {"), encoding="utf-8")
    with pytest.raises(UsageProblem, match="optim is a section"):
        compose.compose(read_recipe(str(path)), str(profile), Site())


def test_a_recipe_may_not_say_what_kind_of_run_it_is(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("stage: sft\nkind: test\n", encoding="utf-8")
    with pytest.raises(UsageProblem, match="kind"):
        compose.compose(read_recipe(str(path)), "cpu", Site())


def test_a_reward_function_is_named_by_the_whole_path_of_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job runs in another folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d.jsonl").write_text('{"prompt": "a", "answer": "b"}\n', encoding="utf-8")
    (tmp_path / "judge").mkdir()
    (tmp_path / "own.py").write_text("", encoding="utf-8")
    text = (
        "stage: grpo\nmodel: {model_name_or_path: a/b}\ndata: {train_files: d.jsonl}\n"
        "method: {num_generations: 4, reward_functions: [own.py:score, exact_match], reward_model: ./judge}\n"
    )
    (tmp_path / "r.yaml").write_text(text, encoding="utf-8")
    method = compose.compose(read_recipe("r.yaml"), "cpu", Site()).config.method
    assert method.reward_functions == [f"{tmp_path}/own.py:score", "exact_match"]
    assert method.reward_model == str(tmp_path / "judge")
    (tmp_path / "own.py").unlink()
    (tmp_path / "judge").rmdir()
    with pytest.raises(UsageProblem, match=r"(?s)there is no file .*own\.py.*there is no directory .*judge"):
        compose.compose(read_recipe("r.yaml"), "cpu", Site())


def test_a_recipe_wins_over_the_profile_that_it_names_and_over_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d.csv").write_text("prompt,response\na,b\n", encoding="utf-8")
    for name in ("own", "other"):
        text = "set: {optim.per_device_train_batch_size: 8, optim.gradient_accumulation_steps: 3}\n"
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "r.yaml").write_text(
        "stage: sft\nprofile: ./own.yaml\nmodel: {model_name_or_path: a/b}\ndata: {train_files: d.csv}\n"
        "optim: {per_device_train_batch_size: 2}\n",
        encoding="utf-8",
    )
    recipe = read_recipe("r.yaml")

    def batch(profile: str, *sets: str) -> tuple[int, int]:
        optim = compose.compose(recipe, profile, Site(), sets).config.optim
        return optim.per_device_train_batch_size, optim.gradient_accumulation_steps

    assert batch("./own.yaml") == (2, 3)
    assert batch("./other.yaml") == (8, 3)
    assert batch("./own.yaml", "optim.per_device_train_batch_size=5") == (5, 3)
