"""How much memory a run takes on its fullest GPU and on its node, before it is submitted: an estimate, term by term.

The peak of a training step is at one of five moments: when the forward pass ends, in the backward pass of the output
layer, in that of one layer, when the backward pass ends, or in the optimiser's step; stages that generate have a sixth.
All are added up, and the terms of the largest are the answer. docs/memory.md has the formulas and how they were held
against traces of the real training step. Pure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from clusterctl.models.adapter import trainable
from clusterctl.models.shape import Shape
from clusterctl.plan import host_memory
from clusterctl.plan.activations import Head, Widths, attention_masks, head, layer, working
from clusterctl.plan.batch import ROLLOUTS
from clusterctl.plan.estimates import Memory, Term
from clusterctl.plan.formats import Formats, formats, longest, sequences
from clusterctl.plan.once import once
from clusterctl.plan.states import (
    Learning,
    buffers,
    gradients,
    optimiser,
    second,
    shared_buckets,
    step_extra,
    weights,
)
from trainers.config import RunConfig
from trainers.hardware import GpuType

CONTEXT = 600 * 2**20
"""CUDA's context and libraries in one process, outside of PyTorch's own memory. A constant, not measured here."""
NCCL = 500 * 2**20
"""NCCL's buffers and channels where processes talk. A constant, not measured here."""
FRAGMENTS = 0.03
"""Share that PyTorch holds beyond what is in use; expandable segments, with which jobs run, keep it small."""


def estimate(
    config: RunConfig,
    shape: Shape,
    card: GpuType | None,
    *,
    reference: Shape | None = None,
    learning: Learning | None = None,
) -> Memory:
    """The memory of a run at its peak.

    Args:
        config: the whole run, as run.yaml has it.
        shape: its model.
        card: the GPU it is to run on; None: one of which nothing is known. The terms do not depend on it.
        reference: the reward model of a run that has one; None where there is none, or it is not known.
        learning: what ``what_learns`` gives, for who tries many batches of one model.

    Raises:
        UsageProblem: the model has no weights of the names that are to be adapted, frozen or trained.
    """
    learning = learning or what_learns(config, shape)
    host = host_memory.terms(config, shape, learning)
    rough = bool(shape.num_experts) or str(config.engine) != "trl"
    peak = max(moments(config, shape, learning, reference), key=_sum)
    on_device = [*peak, *_overhead(config, _sum(peak))]
    if config.parallel.device == "cpu":
        # Without a GPU all of it lies in the node's memory, once for each process.
        each = config.parallel.processes_per_node
        many = [dataclasses.replace(term, size=each * term.size) for term in peak if term.size]
        return Memory((), (*many, *host), exact=shape.exact, rough=rough)
    return Memory(tuple(term for term in on_device if term.size), tuple(host), exact=shape.exact, rough=rough)


@once
def what_learns(config: RunConfig, shape: Shape) -> Learning:
    """The weights that learn: the same for every batch and card. Raises UsageProblem as ``estimate``."""
    return Learning(trainable(shape, config.model, config.stage), adapter=config.model.adapter == "lora")


def measured(memory: Memory, peak: int, run_id: str) -> Memory:
    """The estimate with what a run like it measured: PyTorch's peak, and the context, which PyTorch does not see."""
    return dataclasses.replace(memory, peak=peak + _outside(memory), measured_in=run_id)


def of_pytorch(memory: Memory) -> int:
    """Bytes of the estimate that PyTorch's own peak counts: without context and NCCL."""
    return memory.total - _outside(memory)


def _outside(memory: Memory) -> int:
    return sum(term.size for term in memory.device if term.name in ("CUDA context", "NCCL"))


def moments(config: RunConfig, shape: Shape, learning: Learning, reward: Shape | None = None) -> list[list[Term]]:
    """The terms of each moment that may be the peak, without context and fragments: what PyTorch allocates."""
    form, checkpointing = formats(config), config.model.gradient_checkpointing
    tokens, depth = sequences(config) * longest(config), shape.num_hidden_layers
    one, last = layer(config, shape, learning.weights if learning.adapter else ()), _head(config, shape, learning)
    grads = gradients(config, learning)
    always = [weights(config, shape, learning), *second(config, shape, learning, reward)]
    always += [optimiser(config, learning), *buffers(config, shape, learning)]
    before = [grads] if _stay(config) else []
    stream = form.stream * shape.hidden_size
    each = stream if checkpointing else one.token
    words = f"{each} B x {tokens} tokens x {depth} layers" + (
        ", inputs of checkpointed layers" if checkpointing else ""
    )
    kept = Term("activations", tokens * (each * depth + stream), words, "docs/memory.md")
    out = Term("output layer", last.kept, "its input and last norm", "docs/memory.md")
    copies = _copies(config, shape, form)
    mask = attention_masks(config)
    graph = [*always, *before, kept, mask, out]
    # Checkpointed layers keep no copies, and our autocast remembers none (trainers/runtime/autocast.py).
    held = _none(copies) if checkpointing else copies
    work = working(config, shape, form)
    inner = Term("one layer", tokens * one.token if checkpointing else 0, f"{one.token} B x {tokens} tokens", "")
    layer_copies = dataclasses.replace(held, size=copies.size // depth) if checkpointing else held
    found = [
        [*graph, held, Term("logits", last.forward, last.words, "TRL, chunked_logprob")],
        [*graph, held, Term("logits", last.backward, last.words, "TRL, chunked_logprob")],
        [*always, *before, kept, mask, layer_copies, inner, work, _waiting(config, shape, learning)],
        [*always, grads, _embedding(config, shape, learning)],
        [*always, grads, step_extra(config, learning)],
    ]
    if config.stage in ROLLOUTS:
        found.append([*always, *before, *_generation(config, shape, form)])
    return found


def _head(config: RunConfig, shape: Shape, learning: Learning) -> Head:
    tied = shape.tie_word_embeddings and bool(learning.embedding)
    return head(config, shape, learns=learning.head or tied)


def _copies(config: RunConfig, shape: Shape, form: Formats) -> Term:
    """Autocast's half precision copies of fp32 weights: of all linear layers, which live until they were used again.
    Those of a mixture's experts are copied whatever they are stored in."""
    count = sum(one.count for one in shape.parameters if one.linear and one.part in ("attention", "mlp"))
    count = (count if form.copies else 0) + (shape.part("experts") if form.autocast else 0)
    size = form.compute * count
    return Term("copies of weights", size, f"autocast: {form.compute} B x {count}", "torch.autocast")


def _waiting(config: RunConfig, shape: Shape, learning: Learning) -> Term:
    size = formats(config).gradient * learning.embedding if shape.tie_word_embeddings else 0
    return Term("output layer's gradient", size, "tied: waits for that of the embedding", "torch.autograd")


def _stay(config: RunConfig) -> bool:
    """Whether there are gradients during the forward pass: of earlier batches, or as DDP's buckets."""
    return config.optim.gradient_accumulation_steps > 1 or shared_buckets(config)


def _embedding(config: RunConfig, shape: Shape, learning: Learning) -> Term:
    """The gradient of the embedding is dense, and is added to what was there; a tied output layer's waits for it."""
    one, more = formats(config).gradient * learning.embedding, _stay(config)
    many = (3 if more else 2) if shape.tie_word_embeddings else int(more)
    return Term("embedding's gradient", many * one, f"{many} x {one} B while it is added", "torch.nn.Embedding")


def _generation(config: RunConfig, shape: Shape, form: Formats) -> list[Term]:
    """Keys and values of all answers of a step, made at once; the last layer's are copied when a token is added."""
    rows = config.optim.per_device_train_batch_size * config.optim.gradient_accumulation_steps
    width, length = Widths.of(shape), longest(config)
    each = 2 * form.stream * width.keys
    cache = rows * length * each * (shape.num_hidden_layers + 1)
    logits = rows * shape.vocab_size * (4 + 4 + form.compute)
    return [
        Term("keys and values", cache, f"{each} B x {rows} answers x {length} tokens, each layer", "transformers"),
        Term("logits", logits, f"of the last token of {rows} answers, and their probabilities", "transformers"),
    ]


def _none(term: Term) -> Term:
    return dataclasses.replace(term, size=0)


def _overhead(config: RunConfig, allocated: int) -> list[Term]:
    found = [
        Term("fragments", int(FRAGMENTS * allocated), f"{FRAGMENTS:.0%} of the above", "a constant"),
        Term("CUDA context", CONTEXT, "outside of PyTorch's memory", "a constant"),
    ]
    if config.parallel.world_size > 1:
        found.append(Term("NCCL", NCCL, "buffers between the processes", "a constant"))
    return found


def _sum(terms: Sequence[Term]) -> int:
    return sum(term.size for term in terms)
