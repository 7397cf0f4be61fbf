"""How long a run takes: the formulas by hand, published speeds, and what a measurement changes."""

from __future__ import annotations

from typing import Any

import pytest

from clusterctl.models.find import shape_of
from clusterctl.models.shape import Shape
from clusterctl.plan import advice, duration, pace, work
from clusterctl.plan.batch import arithmetic
from clusterctl.plan.estimates import Duration, Point
from clusterctl.runs import measured
from trainers import hardware
from trainers.config import RunConfig, parse
from trainers.hardware import GpuType

LLAMA, QWEN = "meta-llama/Llama-3.2-3B", "Qwen/Qwen2.5-7B-Instruct"


def config(name: str = LLAMA, stage: str = "sft", **sections: dict[str, Any]) -> RunConfig:
    own = {
        "model": {"model_name_or_path": name},
        "data": {"train_files": ["x.csv"], "max_length": 4096},
        "optim": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 1, "num_train_epochs": 1},
        "precision": {"dtype": "bf16"},
    }
    merged = {key: {**own.get(key, {}), **sections.get(key, {})} for key in (*own, *sections)}
    return parse({"stage": stage, **merged})


def card(name: str) -> GpuType:
    found = hardware.find(name)
    assert found
    return found


def speed(settings: RunConfig, gpu: str, row_length: float = 4096) -> float:
    """Tokens a second."""
    shape = shape_of(settings.model.model_name_or_path)
    batch, token = arithmetic(settings, 1000), work.of_token(settings, shape, row_length)
    step = work.step(settings, shape, batch, card(gpu), token, row_length=row_length)
    assert step
    return batch.effective * row_length * work.sequences(settings) / step.total


def took(settings: RunConfig, gpu: str | None, rows: int | None = 1000, **more: Any) -> Duration | None:
    shape: Shape | None = shape_of(settings.model.model_name_or_path)
    known = card(gpu) if gpu else None
    more = {"row_length": 4096, **more}
    return duration.estimate(settings, shape, arithmetic(settings, rows), known, **more)


@pytest.mark.parametrize(
    ("settings", "row_length", "published"),
    [
        # torchtune's table of memory optimisations, one A100, batches of 2: packed to 4096, LoRA, and short rows.
        (config(model={"adapter": "none"}), 4096, 7100),
        (config(), 4096, 8200),
        (config(model={"adapter": "none"}), 150, 2100),
        # Qwen's own table: 7B, LoRA, 2048 tokens.
        (config(QWEN), 2048, 3150),
    ],
)
def test_published_speeds_within_a_third(settings: RunConfig, row_length: float, published: float) -> None:
    assert speed(settings, "a100", row_length) == pytest.approx(published, rel=0.35)


def test_the_work_of_each_stage_by_hand() -> None:
    """In units of a forward pass: 3 to train all weights, 1 for each further look."""
    full = {"adapter": "none"}
    settings = config(model=full)
    token = work.of_token(settings, shape_of(LLAMA), 512)
    assert token.trained == pytest.approx(3 * token.read)
    unit = token.read * 512

    def passes(stage: str = "sft", **sections: dict[str, Any]) -> float:
        sections["model"] = {**full, **sections.get("model", {})}
        return work.row_flops(config(stage=stage, **sections), token, 512) / unit

    assert passes() == pytest.approx(3)
    assert passes(model={"gradient_checkpointing": True}) == pytest.approx(4)
    assert passes("dpo") == pytest.approx(2 * 4)
    assert passes("dpo", method={"precompute_ref_log_probs": True}) == pytest.approx(2 * 3)
    assert passes("reward") == pytest.approx(2 * 3)
    assert passes("kto") == pytest.approx(3 + 1 + 2)
    rewards = {"reward_functions": ["length"], "num_generations": 2}
    assert passes("grpo", method=rewards) == pytest.approx(3)
    assert passes("grpo", method={**rewards, "beta": 0.1}) == pytest.approx(4)


def test_what_is_shared_out_costs_sending_and_offload_costs_time() -> None:
    shared = {"launcher": "torchrun", "processes_per_node": 4}
    full = {"adapter": "none"}

    def step(gpu: str = "a800", **parallel: Any) -> work.Step:
        settings = config(QWEN, model=full, parallel={**shared, **parallel})
        shape, batch = shape_of(QWEN), arithmetic(settings, 1000)
        found = work.step(settings, shape, batch, card(gpu), work.of_token(settings, shape, 1024), row_length=1024)
        assert found
        return found

    ddp, zero3, far = step(strategy="ddp"), step(strategy="zero3"), step(strategy="zero3", num_nodes=2)
    assert ddp.sending > 0 and far.sending > 2 * zero3.sending
    offloaded = step(strategy="zero3", offload="optimizer")
    assert offloaded.updating > 10 * zero3.updating
    # 7.6 billion parameters at a quarter of a second a billion, and their way to the host.
    assert offloaded.updating == pytest.approx(7.6 * 0.25 + 4 * 7.6e9 / 4 / 24e9, rel=0.02)
    assert step("a40", strategy="zero3").computing == pytest.approx(zero3.computing * 312 / 149.7, rel=0.01)


def test_weights_that_lie_in_host_memory_come_over_pcie_for_every_batch() -> None:
    def step(**parallel: Any) -> work.Step:
        settings = config(
            QWEN,
            parallel={"launcher": "torchrun", **parallel},
            optim={"per_device_train_batch_size": 2, "gradient_accumulation_steps": 32},
        )
        shape, batch = shape_of(QWEN), arithmetic(settings, 1000)
        found = work.step(settings, shape, batch, card("a40"), work.of_token(settings, shape, 200), row_length=200)
        assert found
        return found

    alone, offloaded = step(strategy="zero3"), step(strategy="zero3", offload="all")
    assert alone.sending == 0 and offloaded.computing == alone.computing
    # 7.6 billion weights of 2 bytes, up twice for each of 32 batches: 41 s, of which only the computing hides some.
    assert offloaded.sending == pytest.approx(32 * 2 * 2 * 7.6e9 / 24e9 - alone.computing, rel=0.02)


def test_the_spans_of_a_run() -> None:
    settings = config(
        data={"validation_split": 0.1}, eval={"eval_steps": 100}, output={"save_steps": 250}, model={"adapter": "none"}
    )
    found = took(settings, "a100")
    assert found and found.measured_in is None
    spans = {span.name: span for span in found.spans}
    assert list(spans) == ["starting", "training", "evaluations", "checkpoints"]
    assert spans["training"].basis.startswith("500 steps x ") and "default" in spans["training"].basis
    # One before the first step, and after each 100 of 500.
    assert spans["evaluations"].basis.startswith("6 x 111 held-out rows")
    assert spans["checkpoints"].basis.startswith("2 x 38.6 GB")
    assert found.total == pytest.approx(sum(span.seconds for span in found.spans))
    assert found.seconds_per_step == pytest.approx(spans["training"].seconds / 500)
    # A row that is only read costs a third of one that is learnt from.
    assert spans["evaluations"].seconds == pytest.approx(6 * 111 / 2 * found.seconds_per_step / 3, rel=0.01)
    given = took(config(data={"eval_files": ["y.csv"]}), "a100")
    assert given and "not counted" in given.spans[2].basis


def test_what_is_not_known_is_none() -> None:
    assert took(config(), "a100", rows=None) is None
    assert took(config(), None) is None
    assert took(config(precision={"dtype": "fp32"}), "v100") is not None
    assert took(config(), "v100") is None, "a V100 knows no bf16"


def point(**changes: Any) -> Point:
    values = {
        "run_id": "sft-1", "fingerprint": "f", "gpu": "a100", "peak_memory": 10, "seconds_per_step": 2.5,
        "tokens_per_second": 1e3, "mfu": 0.5, "stage": "sft", "model_type": "llama", "adapter": "lora",
    }  # fmt: skip
    return Point(**{**values, **changes})


def test_a_measured_step_beats_all_and_a_like_run_lends_its_efficiency() -> None:
    points = [point(), point(run_id="sft-2", seconds_per_step=3.0), point(run_id="x", fingerprint="g", mfu=0.25)]
    newest = measured.same(points, "f")
    assert newest and newest.run_id == "sft-2" and measured.same(points, "h") is None
    assert measured.same(points, "f", gpu="a40") is None
    batch = arithmetic(config(), 1000)
    # Neither the model nor the card need be known.
    found = duration.estimate(config(), None, batch, None, row_length=0, point=newest)
    assert found and found.measured_in == "sft-2" and found.seconds_per_step == 3.0
    kind = {"gpu": "a100", "stage": "sft", "model_type": "llama", "adapter": "lora"}
    like = measured.alike(points, **kind)
    assert like and (like.run_id, like.seconds_per_step, like.peak_memory) == ("x", None, None)
    assert measured.alike(points, **{**kind, "gpu": "a40"}) is None
    slow, default = took(config(), "a100", point=like), took(config(), "a100")
    assert slow and default and slow.efficiency == 0.25 and "25% of the peak as in x" in slow.spans[1].basis
    assert slow.spans[1].seconds == pytest.approx(default.spans[1].seconds * 0.4 / 0.25, rel=0.02)


def test_the_pace_of_a_run_has_its_evaluations_in_it() -> None:
    lines = [{"step": step, "attempt": 2, "loss": 1.0, "time": 100.0 + 2 * step} for step in (1, 5, 10)]
    assert pace.of(lines, 2) == 2.0
    lines.append({"step": 15, "attempt": 2, "loss": 1.0, "time": 100.0 + 2 * 15 + 30})
    assert pace.of(lines, 2) == pytest.approx(2 + 30 / 14)
    assert pace.of(lines, 1) is None and pace.of(lines[:1], 2) is None
    assert pace.of([{**lines[0], "time": "x"}, *lines[1:]], 2) == pytest.approx(5.0)
    assert pace.training(-3, 2.0) == 0


def test_advice_on_fewer_and_smaller_cards() -> None:
    """A small LoRA run on four A800 is told of an A40; one whose peak fills its cards is not."""
    settings = config(
        "Qwen/Qwen2.5-1.5B-Instruct",
        parallel={"strategy": "ddp", "launcher": "torchrun", "processes_per_node": 4},
        optim={"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4},
        data={"max_length": 1024},
    )
    shape = shape_of("Qwen/Qwen2.5-1.5B-Instruct")
    a800, a40 = card("a800"), card("a40")
    run = advice.Measured(a800, 4, 12 * 2**30, 600)
    found = advice.cheaper(settings, shape, run, {a40: 4, a800: 4})
    assert (found[0].card.name, found[0].count) == ("a40", 1)
    assert 4 < found[0].longer < 12 and found[0].needs < 0.92 * a40.usable
    # The faster of the cheaper ones comes second.
    assert found[1].longer < found[0].longer
    full = advice.Measured(a800, 1, 76 * 2**30, 600)
    assert advice.cheaper(config(QWEN, model={"adapter": "none"}), shape_of(QWEN), full, {a40: 4}) == []
    checkpointed = config("Qwen/Qwen2.5-1.5B-Instruct", model={"gradient_checkpointing": True})
    change = advice.faster(checkpointed, shape, advice.Measured(a800, 1, 6 * 2**30, 2000))
    assert change and change.sets == ("model.gradient_checkpointing=false",) and 0.2 < change.shorter < 0.4
