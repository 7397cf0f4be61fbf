"""What a run holds all the time, on each GPU: weights, gradients, optimiser, a second model, buffers. Pure.

N numbers in the model, P of them learn, n processes share. ZeRO: https://arxiv.org/abs/1910.02054, and the installed
DeepSpeed 0.19.8, whose buffers and formats this counts; FSDP: torch.distributed.fsdp.fully_shard.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from clusterctl.models.shape import Parameter, Shape
from clusterctl.plan.estimates import Term
from clusterctl.plan.formats import formats, second_model
from trainers.config import RunConfig

ZERO = "ZeRO, arXiv:1910.02054"
TRAINERS = "trainers/model/device.py"

LIVE = 10**9
"""Numbers that ZeRO-3 keeps gathered at most: DeepSpeed's default of stage3_max_live_parameters."""
SUB_GROUP = 10**9
"""Numbers whose gradients ZeRO-3 turns to fp32 at once: DeepSpeed's default of sub_group_size."""
BUCKET = 5 * 10**7
"""Numbers of a bucket of ZeRO-1 and ZeRO-2: trainers/runtime/deepspeed.py."""


@dataclass(frozen=True)
class Learning:
    """The weights that learn, and those of an adapter among them or beside them that hold still."""

    weights: tuple[Parameter, ...]
    adapter: bool

    @cached_property
    def count(self) -> int:
        """Numbers that learn."""
        return sum(one.count for one in self.weights)

    @property
    def head(self) -> bool:
        """Whether the output layer's weight learns."""
        return not self.adapter and any(one.part == "head" for one in self.weights)

    @property
    def embedding(self) -> int:
        """Numbers of the embedding that learn."""
        return 0 if self.adapter else sum(one.count for one in self.weights if one.part == "embedding")


def weights(config: RunConfig, shape: Shape, learning: Learning) -> Term:
    """The model itself, as one GPU holds it."""
    form, parallel, total = formats(config), config.parallel, shape.total
    added = learning.count if learning.adapter else 0
    if config.model.quantization != "none":
        size, words = quantised(config, shape, form.stored)
        words += f" + {form.adapter} B x {added}"
        return Term("weights", size + form.adapter * added, words, "QLoRA, arXiv:2305.14314; bitsandbytes")
    size, words = form.stored * total + form.adapter * added, f"{form.stored} B x {_big(total)}"
    if added:
        words += f" + {form.adapter} B x {_big(added)} of the adapter"
    if parallel.strategy in ("zero3", "fsdp"):
        if parallel.offload == "all":
            return Term("weights", 0, "in the node's memory", ZERO)
        return Term("weights", size // parallel.world_size, f"({words}) / {parallel.world_size}", ZERO)
    return Term("weights", size, words, TRAINERS)


def quantised(config: RunConfig, shape: Shape, plain: int) -> tuple[int, str]:
    """Bytes of a quantised model: its linear layers but the output layer in 4 or 8 bits, the rest in ``plain`` bytes.

    4 bits: NF4, one fp32 scale for 64 numbers, which double quantisation stores in 8 bits with one fp32 for 256.
    """
    small = sum(one.count for one in shape.parameters if one.linear and len(one.shape) == 2 and one.part != "head")
    each, words = 1.0, "1 B"
    if config.model.quantization == "4bit":
        each = 0.5 + (1 / 64 + 4 / (64 * 256) if config.model.double_quant else 4 / 64)
        words = f"{each:.3f} B"
    rest = shape.total - small
    return int(each * small) + plain * rest, f"{words} x {_big(small)} + {plain} B x {_big(rest)}"


def gradients(config: RunConfig, learning: Learning) -> Term:
    """Of every weight that learns, between two batches of one step."""
    form, parallel, count = formats(config), config.parallel, learning.count
    size, words = form.gradient * count, f"{form.gradient} B x {_big(count)}"
    if parallel.strategy in ("zero2", "zero3", "fsdp"):
        if parallel.offload == "all" or (parallel.deepspeed and parallel.offload == "optimizer"):
            return Term("gradients", 0, "in the node's memory", ZERO)
        return Term("gradients", size // parallel.world_size, f"{words} / {parallel.world_size}", ZERO)
    if shared_buckets(config):
        return Term("gradients", size, f"{words}, parts of DDP's buckets", "trainers/runtime/trainer.py")
    return Term("gradients", size, words, TRAINERS)


def shared_buckets(config: RunConfig) -> bool:
    """Whether the gradients lie in DDP's buckets, which are never given back."""
    return config.parallel.strategy == "ddp" and config.parallel.world_size > 1


def optimiser(config: RunConfig, learning: Learning) -> Term:
    """States of the optimiser, and DeepSpeed's fp32 copy of half precision weights."""
    parallel, count = config.parallel, learning.count
    size, words = optimiser_states(config, learning)
    if parallel.deepspeed and config.precision.dtype != "fp32":
        size, words = size + 4 * count, f"{words} + fp32 copy 4 B x {_big(count)}"
    if parallel.offload != "none":
        return Term("optimiser", 0, "in the node's memory", ZERO)
    if parallel.deepspeed or parallel.strategy == "fsdp":
        return Term("optimiser", size // parallel.world_size, f"({words}) / {parallel.world_size}", ZERO)
    if config.optim.optim.startswith("paged"):
        return Term("optimiser", 0, "paged: moves to the node's memory when it gets tight", "bitsandbytes")
    return Term("optimiser", size, words, config.optim.optim)


def optimiser_states(config: RunConfig, learning: Learning) -> tuple[int, str]:
    """Bytes over all processes, wherever they lie. Adam has two fp32 numbers for each; in 8 bits two bytes and two
    fp32 scales for 256 of them, embeddings excepted (transformers' Trainer, bitsandbytes' block size)."""
    name, count = config.optim.optim, learning.count
    if name == "sgd":
        return 0, "SGD without momentum has none"
    if name == "adafactor":
        flat = config.parallel.deepspeed
        rows = sum(one.count if flat or len(one.shape) < 2 else _factored(one) for one in learning.weights)
        return 4 * rows, f"4 B x {_big(rows)} rows and columns"
    if name.endswith("8bit"):
        plain = 0 if config.parallel.deepspeed else learning.embedding
        plain += sum(one.count for one in learning.weights if one.count < 4096)
        small = count - plain
        return int(small * (2 + 8 / 256)) + 8 * plain, f"2.03 B x {_big(small)} + 8 B x {_big(plain)}"
    return 8 * count, f"8 B x {_big(count)}"


def _factored(one: Parameter) -> int:
    return one.count // one.shape[-1] + one.count // one.shape[-2]


def second(config: RunConfig, shape: Shape, learning: Learning, reward: Shape | None) -> list[Term]:
    """Models beside the one that learns: the reference, the copy of an adapter, the reward model."""
    form, parallel, terms = formats(config), config.parallel, []
    shared = parallel.world_size if parallel.strategy in ("zero3", "fsdp") else 1
    if second_model(config):
        words = f"{form.stored} B x {_big(shape.total)}" + (f" / {shared}" if shared > 1 else "")
        terms.append(Term("reference", form.stored * shape.total // shared, words, "trainers/model/reference.py"))
    lora = config.model.adapter == "lora" and config.stage in ("dpo", "kto")
    if lora and (config.model.adapter_name_or_path or config.model.lora.use_dora):
        words = f"copy of the adapter, {form.adapter} B x {_big(learning.count)}"
        terms.append(Term("reference", form.adapter * learning.count, words, "trainers/runtime/referenced.py"))
    if reward is not None:
        words = f"{form.stored} B x {_big(reward.total)}"
        terms.append(Term("reward model", form.stored * reward.total, words, "trainers/rewards/classifier.py"))
    return terms


def buffers(config: RunConfig, shape: Shape, learning: Learning) -> list[Term]:
    """What sharing needs while layers are computed: gathered weights and buckets of gradients."""
    parallel, h = config.parallel, shape.hidden_size
    if parallel.strategy in ("zero1", "zero2"):
        words = f"2 buckets of 2 B x {_big(BUCKET)}"
        return [Term("buckets", 2 * 2 * min(BUCKET, learning.count), words, "trainers/runtime/deepspeed.py")]
    largest = max(one.count for one in shape.parameters)
    if parallel.strategy == "zero3":
        live = min(shape.total, LIVE)
        bucket = 2 * 2 * h * h + (2 * largest if not learning.adapter else 0)
        return [
            Term("gathered weights", 2 * live, f"2 B x {_big(live)}, stage3_max_live_parameters", "DeepSpeed"),
            Term("buckets", bucket, f"2 x 2 B x {h} x {h}, and the largest gradient", "DeepSpeed"),
        ]
    if parallel.strategy == "fsdp":
        each = one_layer(shape)
        ends = shape.part("embedding", "head")
        gathered = 2 * (2 * each + ends)
        words = f"2 B x (2 layers of {_big(each)} + {_big(ends)} outside of layers)"
        terms = [Term("gathered weights", gathered, words, "torch fully_shard")]
        if not learning.adapter:
            terms.append(Term("buckets", (2 + 4) * max(each, ends), "gradients of the largest unit", "torch"))
        return terms
    return []


def step_extra(config: RunConfig, learning: Learning) -> Term:
    """What the optimiser needs on top while it steps."""
    parallel, count, name = config.parallel, learning.count, config.optim.optim
    share = count // parallel.world_size if parallel.deepspeed or parallel.strategy == "fsdp" else count
    if parallel.offload != "none":
        return Term("optimiser step", 0, "in the node's memory", "DeepSpeed")
    if parallel.deepspeed and config.precision.dtype != "fp32":
        share = min(share, SUB_GROUP) if parallel.strategy == "zero3" else share
        return Term("optimiser step", 6 * share, f"gradients in fp32 and flat, 6 B x {_big(share)}", "DeepSpeed")
    largest = max((one.count for one in learning.weights), default=0)
    if name == "adamw_torch":
        return Term("optimiser step", 4 * share, f"4 B x {_big(share)}, all weights at once", "torch.optim, foreach")
    if name == "adafactor":
        return Term("optimiser step", 8 * largest, f"8 B x {_big(largest)}, the largest weight", "transformers")
    return Term("optimiser step", 0, "in place", name)


def one_layer(shape: Shape) -> int:
    """Numbers of the first layer."""
    return sum(one.count for one in shape.parameters if one.name.startswith(f"{shape.layers}.0."))


def _big(count: int) -> str:
    """A number as people say it: 7.62e9 is 7.62 G."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count)
