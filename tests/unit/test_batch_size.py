"""Rows of a step, rows at once, accumulation: what is said stays, what is not follows, from card and model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from clusterctl import compose, yaml_text
from clusterctl.compose import Composed
from clusterctl.errors import NoFit, UsageProblem
from clusterctl.models import find
from clusterctl.models.shape import Shape
from clusterctl.plan.agree import ACCUMULATION, BATCH, ROWS, Said, agree
from clusterctl.plan.estimates import TIGHT, Fit
from clusterctl.plan.inventory import Inventory, Offer
from clusterctl.plan.memory import estimate
from clusterctl.recipe import read_recipe
from clusterctl.runs import judge
from clusterctl.runs.draft import draft
from clusterctl.runs.fingerprint import fingerprint
from clusterctl.runs.request import Request
from clusterctl.schema import Site
from clusterctl.settings import Settings
from trainers.config import RunConfig, parse

GIB = 2**30
CLUSTER = Inventory(
    "slurm",
    (
        Offer("a800", None, 2, 4, 8, 8, "a800", cpus_per_node=64, host_memory=1000 * GIB),
        Offer("a40", None, 1, 4, 4, 4, "a40", cpus_per_node=48, host_memory=60 * GIB),
        Offer("v100", None, 1, 2, 2, 2, "old", cpus_per_node=20, host_memory=200 * GIB),
    ),
)


def said(**numbers: tuple[int, int]) -> dict[str, Said]:
    keys = {"rows": ROWS, "batch": BATCH, "accumulation": ACCUMULATION}
    return {keys[name]: Said(value, rank, f"layer {rank}") for name, (value, rank) in numbers.items()}


@pytest.mark.parametrize(
    ("numbers", "processes", "rows", "batch", "accumulation"),
    [
        ({"rows": (16, 1), "batch": (2, 1)}, 2, 16, 2, 4),
        ({"rows": (16, 1), "accumulation": (8, 2)}, 2, 16, 1, 8),
        # A stronger layer outdoes a weaker one: the profile cpu over a recipe, and --set over that.
        ({"rows": (16, 1), "batch": (4, 2), "accumulation": (1, 2)}, 1, 4, 4, 1),
        ({"rows": (16, 1), "batch": (4, 2), "accumulation": (2, 3)}, 1, 8, 4, 2),
        ({"rows": (32, 3), "batch": (4, 2), "accumulation": (1, 2)}, 1, 32, 4, 8),
        ({"rows": (16, 1), "batch": (4, 1), "accumulation": (2, 1)}, 2, 16, 4, 2),
    ],
)
def test_what_is_said_of_a_batch(numbers: Any, processes: int, rows: int, batch: int, accumulation: int) -> None:
    found = agree(said(**numbers), processes, gpus=True)
    assert found is not None
    assert (found.rows, found.batch, found.accumulation, found.open) == (rows, batch, accumulation, False)


@pytest.mark.parametrize(
    ("numbers", "processes", "words"),
    [
        ({"rows": (16, 1), "batch": (4, 1), "accumulation": (2, 1)}, 1, "= 8"),
        ({"rows": (15, 1)}, 2, "cannot be split evenly over 2 processes"),
        ({"rows": (16, 1), "batch": (3, 2)}, 1, r"per_device_train_batch_size 3 \[layer 2\]"),
        ({"rows": (33, 3), "batch": (4, 2), "accumulation": (1, 2)}, 1, "cannot be split evenly"),
        ({"rows": (1, 1)}, 8, "cannot be split evenly over 8"),
    ],
)
def test_what_contradicts_itself_is_refused(numbers: Any, processes: int, words: str) -> None:
    with pytest.raises(UsageProblem, match=words):
        agree(said(**numbers), processes, gpus=True)


@given(st.integers(1, 64), st.integers(1, 32))
def test_a_batch_of_which_nothing_is_said_holds_whole_groups(processes: int, group: int) -> None:
    found = agree({}, processes, gpus=True, group=group)
    assert found is not None and found.open
    assert found.rows >= 16 and found.rows % processes == 0 and found.rows % group == 0
    assert agree({}, processes, gpus=False) is None


def test_run_yaml_has_all_three_and_they_agree() -> None:
    values: dict[str, Any] = {"stage": "sft", "model": {"model_name_or_path": "m"}, "data": {"train_files": "d.csv"}}
    optim = {"train_batch_size": 16, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 8}
    assert parse({**values, "optim": optim}).optim.train_batch_size == 16
    with pytest.raises(ValidationError, match="train_batch_size 12 is not"):
        parse({**values, "optim": {**optim, "train_batch_size": 12}})


# --- made to measure ---------------------------------------------------------------------------


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Compose a recipe of that model under that profile."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    (tmp_path / "d.csv").write_text("prompt,response\na,b\n", encoding="utf-8")

    def known(config: RunConfig, name: str) -> Shape | None:
        return None if name == "nobody/knows" else find.shape_of(name)

    def make(profile: str, *sets: str, inventory: Inventory | None = CLUSTER, **sections: Any) -> Composed:
        values: dict[str, Any] = {
            "stage": "sft",
            "model": {"model_name_or_path": "Qwen/Qwen2.5-1.5B-Instruct", **sections.pop("model", {})},
            "data": {"train_files": "d.csv", **sections.pop("data", {})},
            **sections,
        }
        (tmp_path / "r.yaml").write_text(yaml_text.dump(values), encoding="utf-8")
        look = (lambda: inventory) if inventory else None
        return compose.compose(read_recipe("r.yaml"), profile, Site(), sets, inventory=look, shape_of=known)

    return make


def numbers(one: Composed) -> tuple[int, int, int]:
    optim = one.config.optim
    assert optim.train_batch_size is not None
    return optim.train_batch_size, optim.per_device_train_batch_size, optim.gradient_accumulation_steps


def test_the_largest_batch_that_fits_is_taken(made: Any) -> None:
    """One step further and the estimate is over what may be filled."""
    whole = {"model": {"adapter": "none"}, "data": {"max_length": 2048}, "optim": {"train_batch_size": 64}}
    one = made("a40-1", **whole)
    rows, batch, accumulation = numbers(one)
    assert rows == 64 == batch * accumulation
    assert one.memory.total <= TIGHT * one.usable
    assert one.config.model.gradient_checkpointing, "all weights of 1.5B with their activations are too much"
    if batch < 64:
        more = {"per_device_train_batch_size": 2 * batch, "gradient_accumulation_steps": accumulation // 2}
        larger = one.config.model_copy(update={"optim": one.config.optim.model_copy(update=more)})
        assert estimate(larger, one.shape, one.card).total > TIGHT * one.usable
    assert numbers(made("a800-1", "model.gradient_checkpointing=true", **whole))[1] >= batch
    assert one.origins[BATCH] == "made to measure"


def test_checkpointing_is_left_off_where_a_good_batch_fits_without(made: Any) -> None:
    small = {"model": {"model_name_or_path": "Qwen/Qwen2.5-0.5B-Instruct"}, "data": {"max_length": 512}}
    assert made("a800-1", **small).config.model.gradient_checkpointing is False
    assert made("a800-1", "model.gradient_checkpointing=true", **small).config.model.gradient_checkpointing is True
    long = {"model": {"model_name_or_path": "Qwen/Qwen2.5-7B-Instruct"}, "data": {"max_length": 8192}}
    assert made("a40-1", **long).config.model.gradient_checkpointing is True


def test_a_large_model_is_busy_with_a_short_row_unless_its_weights_come_anew_for_each_batch(made: Any) -> None:
    """Without checkpointing a step costs two thirds: two rows of 2048 tokens are no reason for it."""
    seven = {"model_name_or_path": "Qwen/Qwen2.5-7B"}
    one = made("a40-1", model=seven, data={"max_length": 2048}, optim={"train_batch_size": 64})
    assert not one.config.model.gradient_checkpointing and numbers(one)[1] == 1
    whole = {"model": {**seven, "adapter": "none"}, "data": {"max_length": 2048}, "optim": {"train_batch_size": 64}}
    gathered = made("a800-2-zero3", **whole)
    assert gathered.config.model.gradient_checkpointing and numbers(gathered)[1] >= 4


@pytest.mark.parametrize(
    ("profile", "model", "inventory"),
    [("a800-1", "nobody/knows", CLUSTER), ("gpu-1", "Qwen/Qwen2.5-1.5B-Instruct", None)],
)
def test_careful_values_where_model_or_card_is_not_known(
    made: Any, profile: str, model: str, inventory: Inventory | None
) -> None:
    one = made(profile, inventory=inventory, model={"model_name_or_path": model})
    assert numbers(one) == (16, 1, 16)
    assert one.config.model.gradient_checkpointing is True
    assert one.config.optim.per_device_eval_batch_size == 1
    assert one.origins[ACCUMULATION] == compose.CAREFUL


def test_kto_has_never_less_than_two_rows_at_once(made: Any) -> None:
    one = made("gpu-1", stage="kto", model={"model_name_or_path": "nobody/knows"})
    assert numbers(one) == (16, 2, 8)


def test_what_is_said_is_never_changed(made: Any) -> None:
    optim = {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 5, "per_device_eval_batch_size": 7}
    one = made("a40-2", optim=optim, model={"gradient_checkpointing": False})
    assert numbers(one) == (30, 3, 5)
    assert (one.config.optim.per_device_eval_batch_size, one.config.model.gradient_checkpointing) == (7, False)


def test_without_gpus_the_profile_and_the_defaults_decide(made: Any) -> None:
    assert numbers(made("cpu", optim={"train_batch_size": 16})) == (4, 4, 1)
    assert numbers(made("cpu")) == (4, 4, 1)
    assert made("cpu").config.model.gradient_checkpointing is False


# --- node and card ------------------------------------------------------------------------------


def test_cpus_and_memory_are_the_nodes_share(made: Any) -> None:
    two, four = made("a800-2").profile, made("a800-4").profile
    assert (two.cpus_per_task, four.cpus_per_task) == (32, 64)
    assert made("a800-2", inventory=None).profile.cpus_per_task == 16
    unknown = made("a800-2", model={"model_name_or_path": "nobody/knows"})
    assert unknown.profile.mem == "504G", "half of the node, in steps of 8"
    assert made("a40-4", model={"model_name_or_path": "nobody/knows"}).profile.mem == "60G", "all that the node has"
    offload = made("a800-4-zero3-offload", model={"adapter": "none"})
    assert int(offload.profile.mem[:-1]) * GIB > offload.memory.host_total
    assert made("a800-2", "profile.mem=7G", "profile.cpus_per_task=3").profile.mem == "7G"


def test_the_number_format_is_one_that_the_card_has(made: Any) -> None:
    assert made("v100-1").config.precision.dtype == "fp16"
    assert made("a40-1").config.precision.dtype == "bf16"
    assert made("v100-1", "profile.dtype=fp32").config.precision.dtype == "fp32"
    assert made("gpu-1").config.precision.dtype == "fp16", "any of them may come"


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        ("a800-8", r"8 a800 on one node .*a800: 2 nodes with 4"),
        ("a800-3x4-zero3", "4 a800 on each of 3 nodes"),
        ("h100-1", "no h100"),
    ],
)
def test_a_profile_larger_than_any_node_is_refused_with_the_numbers(made: Any, profile: str, words: str) -> None:
    with pytest.raises(NoFit, match=words):
        made(profile)


def test_an_open_profile_takes_the_smallest_card_that_does(made: Any, tmp_path: Path) -> None:
    """sbatch cannot ask for memory of a GPU: there the type is settled. The local runner can."""
    (tmp_path / "big.yaml").write_text("gpus_per_node: 1\ngpu_memory: 40G\n", encoding="utf-8")
    one = made("./big.yaml")
    assert (one.profile.gpu_type, one.offer.gpu_type) == ("a40", "a40")
    (tmp_path / "big.yaml").write_text("gpus_per_node: 1\ngpu_memory: 80G\n", encoding="utf-8")
    assert made("./big.yaml").profile.gpu_type == "a800"
    (tmp_path / "big.yaml").write_text("gpus_per_node: 1\ngpu_memory: 90G\n", encoding="utf-8")
    with pytest.raises(NoFit, match="no card here has 90G"):
        made("./big.yaml")
    whole = made("gpu-1", model={"adapter": "none"})
    assert whole.profile.gpu_type == "a40", "all weights of 1.5B are too much for the V100"
    assert (
        made("gpu-1", inventory=Inventory("local", CLUSTER.offers), model={"adapter": "none"}).profile.gpu_type is None
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gpus_per_node: 1\ngpu_type: a40\ngpu_memory: 40G\n", "no gpu_type"),
        ("gpu_memory: 40G\n", "needs gpus_per_node"),
        ("gpus_per_node: 1\ngpu_memory: lots\n", "write 40G"),
        ("gpus_per_node: 1\ngpu_memory: 0G\n", "write 40G"),
    ],
)
def test_wrong_memory_of_a_card(made: Any, tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "big.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UsageProblem, match=words):
        made("./big.yaml")


def test_a_test_is_of_the_same_values_as_its_run(made: Any, tmp_path: Path) -> None:
    made("a40-2", optim={"train_batch_size": 32})
    settings = Settings({"output_root": str(tmp_path)}, {})
    [run], [test] = (draft(Request("r.yaml", "a40-2", kind=kind), settings, CLUSTER) for kind in ("train", "test"))
    assert run.fingerprint == test.fingerprint
    assert (
        run.composed.config.optim.per_device_train_batch_size == test.composed.config.optim.per_device_train_batch_size
    )
    [a40] = (offer for offer in CLUSTER.offers if offer.gpu_type == "a40")
    [drained] = draft(Request("r.yaml", "a40-2"), settings, Inventory("slurm", (replace(a40, host_memory=20 * GIB),)))
    assert drained.composed.profile.mem == "20G" != run.composed.profile.mem
    assert drained.fingerprint == run.fingerprint, "which nodes take work today is of no matter"
    assert fingerprint(made("a40-2", "profile.mem=8G")) != fingerprint(made("a40-2", "profile.mem=9G"))


def test_a_number_that_is_outdone_says_by_whom(made: Any, tmp_path: Path) -> None:
    numbers = {"optim.per_device_train_batch_size": 4, "optim.gradient_accumulation_steps": 1}
    (tmp_path / "p.yaml").write_text(yaml_text.dump({"set": numbers}), encoding="utf-8")
    one = made("./p.yaml", optim={"train_batch_size": 16})
    assert (one.config.optim.train_batch_size, one.origins[ROWS]) == (4, "follows from profile ./p.yaml, set")
    assert one.origins[BATCH] == "profile ./p.yaml, set"


def test_all_of_a_nodes_memory_is_what_the_node_has(made: Any) -> None:
    """Slurm's ``--mem=0``."""
    one = made("a40-1", "profile.mem=0")
    assert one.profile.mem == "0" and judge.fits(one, (), "", "slurm").fit is Fit.FITS
    assert judge.fits(made("a40-1", "profile.mem=1G"), (), "", "slurm").fit is Fit.NOT
