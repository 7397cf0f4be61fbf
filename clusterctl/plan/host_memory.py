"""What a run takes of its node's memory: loading, what is offloaded, the processes themselves. Pure, and coarse."""

from __future__ import annotations

from clusterctl.models.shape import Shape
from clusterctl.plan.estimates import Term
from clusterctl.plan.formats import formats, second_model
from clusterctl.plan.states import Learning, optimiser_states
from trainers.config import RunConfig

PROCESS = 3 * 2**30
"""Python, PyTorch and CUDA's libraries in one process, and its tokenised rows. Not measured on a GPU."""
WORKER = 2**29
"""A process that prepares batches."""


def terms(config: RunConfig, shape: Shape, learning: Learning) -> list[Term]:
    """Of one node. Weights are on the host only while they are loaded, states that are offloaded always."""
    here = config.parallel.processes_per_node
    found = [
        Term("processes", here * PROCESS, f"{here} x 3 GiB", "a constant"),
    ]
    if workers := config.optim.dataloader_num_workers:
        found.append(Term("data workers", here * workers * WORKER, f"{here} x {workers} x 0.5 GiB", "a constant"))
    offloaded = _offloaded(config, shape, learning)
    loading = _loading(config, shape)
    # Under ZeRO-3 with offload the loaded weights become the offloaded ones; else both are there for a moment.
    return [*found, *offloaded, loading] if loading.size else [*found, *offloaded]


def _loading(config: RunConfig, shape: Shape) -> Term:
    """Every process reads the whole model into the node's memory before it moves to its GPU (trainers/model/base.py);
    under ZeRO-3 each keeps its share, and one file of weights is open at a time. Without a GPU it stays where it is."""
    form, parallel = formats(config), config.parallel
    if parallel.device == "cpu":
        return Term("loading", 0, "the weights themselves", "")
    models = 2 if second_model(config) else 1
    size = form.stored * shape.total * models
    if parallel.strategy == "zero3":
        here = size // parallel.num_nodes if parallel.offload != "all" else 0
        return Term("loading", min(here, size), "the node's share of the weights while they are read", "transformers")
    words = f"{parallel.processes_per_node} x {form.stored} B x {shape.total} while they are read"
    return Term("loading", parallel.processes_per_node * size, words, "trainers/model/base.py")


def _offloaded(config: RunConfig, shape: Shape, learning: Learning) -> list[Term]:
    """DeepSpeed keeps of every weight that learns the fp32 copy and its gradient, the optimiser's states, and a half
    precision buffer; ZeRO-3 with ``all`` the weights too. What is pinned is rounded up to a power of two."""
    parallel, count = config.parallel, learning.count
    if parallel.offload == "none":
        return []
    here, share = parallel.processes_per_node, count // parallel.world_size
    states, words = optimiser_states(config, learning)
    if parallel.strategy == "fsdp":
        size = (formats(config).stored * shape.total + 4 * count + states) // parallel.num_nodes
        return [Term("offloaded", size, f"weights, gradients and states / {parallel.num_nodes}", "torch fully_shard")]
    pinned = 2 * _pinned(4 * share) + _pinned(2 * share)
    found = [
        Term("optimiser", here * (states // parallel.world_size), f"({words}) / {parallel.num_nodes}", "DeepSpeed"),
        Term("fp32 copy, gradients", here * pinned, f"{here} x (4 + 4 + 2) B x {share}, each pinned", "DeepSpeed"),
    ]
    if parallel.offload == "all":
        size = here * _pinned(2 * shape.total // parallel.world_size)
        found.append(Term("weights", size, f"2 B x {shape.total} / {parallel.num_nodes}, pinned", "DeepSpeed"))
    return found


def _pinned(size: int) -> int:
    """PyTorch's allocator of pinned memory rounds a block up to a power of two (aten/src/ATen/core/CachingHost...)."""
    return 1 << (size - 1).bit_length() if size > 1 else size
