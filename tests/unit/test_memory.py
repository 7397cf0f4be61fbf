"""The memory model: the documents' cases, and what has to be so whatever the constants are."""

from __future__ import annotations

from typing import Any

import pytest

from clusterctl.models.find import shape_of
from clusterctl.plan import memory
from clusterctl.plan.estimates import TIGHT, Fit, Memory, Verdict
from clusterctl.plan.fit import verdict
from trainers import hardware
from trainers.config import RunConfig, parse

GIB = 2**30


def configure(model: str, adapter: str = "none", stage: str = "sft", **more: Any) -> RunConfig:
    """A checkpointed bf16 run of one row of 1024 tokens; keys with two underscores are dotted."""
    values: dict[str, Any] = {
        "stage": stage,
        "model": {"model_name_or_path": model, "adapter": adapter, "gradient_checkpointing": True},
        "data": {"train_files": ["rows.jsonl"]},
        "precision": {"dtype": "bf16"},
        "parallel": {"launcher": "torchrun"},
    }
    for key, value in more.items():
        section, name = key.split("__")
        values.setdefault(section, {})[name] = value
    return parse(values)


def zero3(gpus: int, offload: str = "none") -> dict[str, Any]:
    return {"parallel__strategy": "zero3", "parallel__processes_per_node": gpus, "parallel__offload": offload}


def estimated(config: RunConfig) -> Memory:
    return memory.estimate(config, shape_of(config.model.model_name_or_path), None)


def judged(config: RunConfig, card: str) -> Verdict:
    found = hardware.find(card)
    assert found is not None
    return verdict(estimated(config), found.usable, card.upper(), processes=config.parallel.world_size)


def size(found: Memory, name: str) -> int:
    return sum(term.size for term in (*found.device, *found.host) if term.name == name)


@pytest.mark.parametrize(("rows", "checkpointing"), [(4, True), (1, False)])
def test_1_5b_with_all_weights_fits_one_a40(rows: int, checkpointing: bool) -> None:
    config = configure(
        "Qwen/Qwen2.5-1.5B", optim__per_device_train_batch_size=rows, model__gradient_checkpointing=checkpointing
    )
    assert judged(config, "a40").fit is Fit.FITS


def test_7b_with_all_weights_fits_two_a800_and_not_one() -> None:
    one = judged(configure("Qwen/Qwen2.5-7B"), "a800")
    assert (one.fit, one.why.split(", ")[1]) == (Fit.NOT, "an A800 has 79.1")
    two = judged(configure("Qwen/Qwen2.5-7B", **zero3(2)), "a800")
    assert two.fit in (Fit.FITS, Fit.TIGHT)
    assert two.needs is not None and two.has is not None
    assert 0.8 < two.needs / two.has < 1


def test_14b_with_all_weights_needs_offload_on_four_24_gb_cards() -> None:
    without = judged(configure("Qwen/Qwen3-14B", **zero3(4)), "rtx3090")
    assert without.fit is Fit.NOT
    assert without.why == "needs 67.0 GiB on each of its GPUs, an RTX3090 has 23.5"
    off = configure("Qwen/Qwen3-14B", **zero3(4, "all"))
    assert judged(off, "rtx3090").fit is Fit.FITS
    # The states are somewhere: 18 bytes a weight, in the memory of the node.
    assert estimated(off).host_total > 18 * shape_of("Qwen/Qwen3-14B").total


def test_8b_dpo_takes_larger_batches_on_larger_cards_and_8_bits_help_the_small_one() -> None:
    def most(card: str, quantization: str) -> int:
        fits = 0
        for rows in (1, 2, 4, 8, 16, 32):
            config = configure(
                "meta-llama/Llama-3.1-8B-Instruct",
                "lora",
                "dpo",
                optim__per_device_train_batch_size=rows,
                model__quantization=quantization,
            )
            fits = rows if judged(config, card).fit is Fit.FITS else fits
        return fits

    plain = [most(card, "none") for card in ("rtx3090", "a100", "a800")]
    assert plain == sorted(plain) and 1 <= plain[0] <= 4 <= plain[1] < plain[2]
    assert most("rtx3090", "8bit") > plain[0]


def test_dpo_with_all_weights_and_a_full_reference_fits_no_card_alone() -> None:
    config = configure("meta-llama/Llama-3.1-8B-Instruct", stage="dpo")
    assert judged(config, "a800").fit is Fit.NOT
    assert size(estimated(config), "reference") == 4 * 8030261248
    found = estimated(configure("meta-llama/Llama-3.1-8B-Instruct", stage="dpo", method__precompute_ref_log_probs=True))
    assert size(found, "reference") == 0


def test_sharing_halves_what_it_shares() -> None:
    model = "Qwen/Qwen2.5-7B"
    two, four = (estimated(configure(model, **zero3(gpus))) for gpus in (2, 4))
    for name in ("weights", "gradients", "optimiser"):
        assert size(two, name) == pytest.approx(2 * size(four, name), abs=8), name
    total = shape_of(model).total
    assert size(two, "weights") == total and size(two, "optimiser") == 6 * total
    ddp = {"parallel__processes_per_node": 2, "parallel__strategy": "ddp"}
    single, shared = estimated(configure(model)), estimated(configure(model, **ddp))
    assert size(shared, "gradients") == size(single, "gradients") == 4 * total
    kept = {"parallel__processes_per_node": 4, "parallel__strategy": "zero2"}
    assert size(estimated(configure(model, **kept)), "weights") == 2 * total


@pytest.mark.parametrize("adapter", ["none", "lora"])
@pytest.mark.parametrize("stage", ["cpt", "sft", "dpo", "kto", "reward", "grpo", "rloo"])
def test_more_of_it_never_takes_less(adapter: str, stage: str) -> None:
    rewarded: dict[str, Any] = {}
    if stage in ("grpo", "rloo"):
        rewarded = {"method__reward_functions": ["length"], "method__num_generations": 2}

    def total(**more: Any) -> int:
        return estimated(configure("Qwen/Qwen2.5-1.5B", adapter, stage, **rewarded, **more)).total

    least = total()
    assert total(optim__per_device_train_batch_size=16) > least
    assert total(data__max_length=8192) > least
    assert total(model__gradient_checkpointing=False) >= least
    assert total(model__attn_implementation="eager") >= least
    assert total(optim__optim="sgd") <= least


def test_8_bit_states_and_paged_ones() -> None:
    adam, eight, paged = (
        size(estimated(configure("Qwen/Qwen2.5-7B", optim__optim=name)), "optimiser")
        for name in ("adamw_torch_fused", "adamw_8bit", "paged_adamw_32bit")
    )
    # The embedding keeps 32 bits.
    assert adam / 4 < eight < adam / 3
    assert paged == 0


def test_4_bit_weights_take_a_third() -> None:
    plain, four = (
        size(estimated(configure("Qwen/Qwen2.5-7B", "lora", model__quantization=bits)), "weights")
        for bits in ("none", "4bit")
    )
    assert four < 0.4 * plain


def test_what_learns_is_reckoned_once_for_all_batches_and_anew_for_another_adapter() -> None:
    shape = shape_of("Qwen/Qwen2.5-1.5B")
    one = memory.what_learns(configure(shape.name, "lora"), shape)
    batch = configure(shape.name, "lora", optim__per_device_train_batch_size=4, model__gradient_checkpointing=False)
    assert memory.what_learns(batch, shape) is one
    assert memory.what_learns(configure(shape.name, "lora", model__lora={"r": 4}), shape).count == one.count / 4
    assert memory.what_learns(configure(shape.name, "lora", model__freeze=["*.layers.0.*"]), shape).count < one.count
    assert memory.what_learns(configure(shape.name), shape).count == shape.total
    smaller = shape_of("Qwen/Qwen2.5-0.5B")
    assert memory.what_learns(configure(shape.name, "lora"), smaller).count < one.count


def test_on_a_cpu_all_lies_in_the_memory_of_the_node() -> None:
    found = estimated(configure("Qwen/Qwen2.5-0.5B", parallel__device="cpu", parallel__launcher="python"))
    assert found.device == () and found.host_total > 16 * shape_of("Qwen/Qwen2.5-0.5B").total


def test_a_measured_peak_counts_the_context_too() -> None:
    found = memory.measured(estimated(configure("Qwen/Qwen2.5-0.5B")), 10 * GIB, "sft_1")
    assert (found.total, found.measured_in) == (10 * GIB + memory.CONTEXT, "sft_1")


@pytest.mark.parametrize(("usable", "fit"), [(1.2, Fit.FITS), (1.01, Fit.TIGHT), (0.99, Fit.NOT)])
def test_verdict_by_what_the_card_has(usable: float, fit: Fit) -> None:
    found = estimated(configure("Qwen/Qwen2.5-7B", "lora"))
    assert 1 / TIGHT < 1.2
    assert verdict(found, int(usable * found.total), "A40").fit is fit


def test_verdict_says_what_is_missing() -> None:
    found = estimated(configure("Qwen/Qwen2.5-7B", "lora"))
    assert verdict(None, 44 * GIB, "A40").fit is Fit.UNKNOWN
    unknown = verdict(found, None, "X1")
    assert unknown.fit is Fit.UNKNOWN and unknown.needs == found.total
    small = verdict(found, 80 * GIB, "A800", host_usable=GIB)
    assert small.fit is Fit.NOT and "the node's memory, the job gets 1.0" in small.why


def test_every_term_says_how_it_was_reckoned() -> None:
    for term in (*(found := estimated(configure("Qwen/Qwen2.5-7B", stage="dpo"))).device, *found.host):
        assert term.name and term.size > 0 and term.formula and term.source
