"""How long one optimiser step computes, sends and generates: seconds from FLOPs and bytes. Pure, and an estimate.

The constants are defaults for a step that nobody has measured; ``clusterctl test`` replaces them all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from clusterctl.models import flops
from clusterctl.models.adapter import trainable
from clusterctl.models.shape import Shape
from clusterctl.plan.batch import PAIRS, ROLLOUTS, Batch
from clusterctl.plan.once import once
from trainers.hardware import GpuType

if TYPE_CHECKING:
    from trainers.config import RunConfig

EFFICIENCY = 0.4
"""Share of a card's peak that the work done, recomputed activations included, gets out of it.

Published with settings: Llama-3.2-3B on one A100, 2 x 4096 packed, bf16: 0.49 for all weights and 0.39 for LoRA
(torchtune's table of memory optimisations, by the formula of trainers/runtime/compute.py); 7B on one H200 with full
checkpointing 0.58 of the model's FLOPs (KempnerForge's benchmarks). The lower end: rows here differ in length."""

LAYER = 0.002
"""Seconds in which PyTorch issues one decoder layer, forward and backward: what small batches are bound by. From the
same table of torchtune: 2 short rows a step take about 0.09 s in 28 layers, with the optimiser's step."""

LAYER_FORWARD = 0.0007
"""The same, forward alone: a token that transformers' ``generate`` makes takes so long in every layer."""

ADAM = 28
"""Bytes that AdamW moves for a parameter that learns: weight, gradient, two moments read, three written, in fp32."""

HOST_ADAM = 2.5e-10
"""Seconds for each parameter whose AdamW step a host computes: 0.25 s a billion (ZeRO-Offload,
https://arxiv.org/abs/2101.06840, CPU-Adam)."""

PCIE = 24e9
"""Bytes/s of one card to its host, or to another without a faster link: what PCIe 4.0 x16 gets of its 32 GB/s."""

NETWORK = 12.5e9
"""Bytes/s of a node to another: 100 Gbit/s."""

EXPOSED = 0.5
"""Share of what is sent that does not hide behind the computing; what takes longer than the computing never hides."""


@dataclass(frozen=True)
class Token:
    """FLOPs of one token: to learn from it, forward and backward, and only to read it. ``learning`` parameters."""

    trained: float
    read: float
    learning: int


@dataclass(frozen=True)
class Step:
    """Seconds of one optimiser step by cause. ``sending``: to other cards, and of weights that lie in host memory."""

    computing: float
    sending: float
    generating: float
    updating: float

    @property
    def total(self) -> float:
        """Seconds."""
        return self.computing + self.sending + self.generating + self.updating


def sequences(config: RunConfig) -> int:
    """Rows that the model reads for one row of the data: a pair has two answers."""
    return 2 if config.stage in PAIRS else 1


def peak(config: RunConfig, card: GpuType) -> float | None:
    """FLOP/s of a card in this run's number format. TF32 is half of bf16 on every card that has both."""
    match config.precision.dtype:
        case "bf16":
            return card.bf16
        case "fp16":
            return card.fp16 or card.bf16
        case _:
            return card.bf16 / 2 if config.precision.tf32 and card.bf16 else card.fp32


def of_token(config: RunConfig, shape: Shape, row_length: float) -> Token:
    """The work of one token in rows of this length. Raises UsageProblem where nothing of the model can learn."""
    weights, seen = _of_weights(config, shape), flops.attention(shape, row_length)
    return Token(weights.trained + seen, weights.read + seen / 3, weights.learning)


@once
def _of_weights(config: RunConfig, shape: Shape) -> Token:
    learning = trainable(shape, config.model, config.stage)
    return Token(
        trained=flops.weights(shape, learning),
        read=flops.weights(shape, ()) / 2,
        learning=sum(one.count for one in learning),
    )


def row_flops(config: RunConfig, token: Token, row_length: float) -> float:
    """FLOPs that one row of the data costs, all passes of the stage and recomputed activations included.

    Beside the training pass: the reference (dpo, kto, and rollouts with a KL), KTO's mismatched answers through
    model and reference, the value model of PPO, and the forward pass that checkpointing does again.
    """
    method, passes, read = config.method, token.trained, token.read
    if config.model.gradient_checkpointing:
        passes += read
    if (config.stage == "dpo" and not method.precompute_ref_log_probs) or config.stage == "kto":
        passes += read
    if config.stage == "kto" and method.loss_type == "kto":
        passes += 2 * read
    if config.stage in ROLLOUTS and (getattr(method, "beta", 0.0) > 0 or getattr(method, "kl_coef", 0.0) > 0):
        passes += read
    if config.stage == "ppo":
        passes *= 2
    return passes * row_length * sequences(config)


def step(
    config: RunConfig, shape: Shape, batch: Batch, card: GpuType, token: Token, *, row_length: float
) -> Step | None:
    """One step, or None where the card's speed is not known.

    ``row_length`` in tokens of one sequence; of rollouts of prompt and answer together.
    """
    speed = peak(config, card)
    if not speed:
        return None
    each = batch.per_device * row_flops(config, token, row_length) / (speed * EFFICIENCY)
    computing = batch.accumulation * max(each, LAYER * shape.num_hidden_layers)
    moving = _sent(config, shape, batch, token.learning) / _link(config, card)
    moving += _fetched(config, shape, batch, token.learning) / PCIE
    return Step(
        computing=computing,
        sending=max(EXPOSED * moving, moving - computing),
        generating=_generating(config, shape, card),
        updating=_updating(config, card, token.learning),
    )


def _sent(config: RunConfig, shape: Shape, batch: Batch, trained: int) -> float:
    """Bytes that one card sends in a step: ring collectives, (n - 1) / n of what they move
    (ZeRO, https://arxiv.org/abs/1910.02054, section 7)."""
    parallel = config.parallel
    if parallel.world_size == 1:
        return 0.0
    share = (parallel.world_size - 1) / parallel.world_size
    match parallel.strategy:
        case "zero3" | "fsdp":
            # Weights are gathered forward and backward, gradients scattered, for each batch anew.
            moved = batch.accumulation * (2 * 2 * shape.total + 2 * trained)
        case "zero2":
            moved = batch.accumulation * 2 * trained + 2 * trained
        case _:
            moved = 2 * 4 * trained
    return share * moved


def _fetched(config: RunConfig, shape: Shape, batch: Batch, trained: int) -> float:
    """Bytes between one card and its host in a step, where the host keeps the weights: its share of them goes up
    forward and backward, its share of the gradients down, for each batch anew (ZeRO-Infinity,
    https://arxiv.org/abs/2104.07857, section 5)."""
    if config.parallel.offload != "all":
        return 0.0
    return batch.accumulation * (2 * 2 * shape.total + 2 * trained) / config.parallel.world_size


def _link(config: RunConfig, card: GpuType) -> float:
    """Bytes/s of one card, in one direction, on the slowest way to the others."""
    near = card.link_bandwidth / 2 if card.link_bandwidth else PCIE
    return min(near, NETWORK / config.parallel.processes_per_node) if config.parallel.num_nodes > 1 else near


def _generating(config: RunConfig, shape: Shape, card: GpuType) -> float:
    """Seconds to write the longest answers that are allowed: each token reads all weights once, for all answers."""
    if config.stage not in ROLLOUTS:
        return 0.0
    method = config.method
    reading = 2 * shape.total / card.bandwidth if card.bandwidth else 0.0
    fast = str(config.engine) == "verl" or getattr(method, "use_vllm", False)
    token = reading if fast else max(reading, LAYER_FORWARD * shape.num_hidden_layers)
    return float(method.max_completion_length * token / getattr(method, "num_iterations", 1))


def _updating(config: RunConfig, card: GpuType, trained: int) -> float:
    """Seconds of the optimiser's own step."""
    parallel = config.parallel
    shared = parallel.world_size if parallel.deepspeed or parallel.strategy == "fsdp" else 1
    if parallel.offload == "none":
        return ADAM * trained / shared / card.bandwidth if card.bandwidth else 0.0
    # Gradients go down and weights come up in half precision; the cores of a node serve all its processes.
    return trained / parallel.num_nodes * HOST_ADAM + 4 * trained / shared / PCIE
