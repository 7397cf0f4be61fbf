"""One training step on tensors without contents: what PyTorch would allocate for it, counted storage by storage.

The model is transformers' own class with our adapters, number formats, output layer and optimiser, as a GPU would run
it; the tensors are fake (torch's FakeTensorMode), so that an 8B fits anywhere. Results are called traced, not measured:
rounding to 512 bytes is counted, but neither CUDA's context nor the gaps of the allocator.

Where a CPU build of PyTorch goes another way than a GPU, the GPU's is taken: TRL's Triton kernels work in place; the
attention kernel saves what flash attention does; products in fp32 sums need no copies.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MethodType
from typing import Any
from unittest import mock

import torch
import transformers
import trl.kernels.chunked_logprob as tiles
from accelerate.utils import convert_outputs_to_fp32
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import masking_utils
from trl.trainer.utils import add_fused_lm_head

from clusterctl.plan.formats import formats, has_mask, longest, second_model, sequences
from trainers.config import RunConfig
from trainers.model.adapter import new_adapter
from trainers.model.device import weight_dtype
from trainers.runtime.autocast import TRAINING

BLOCK = 512
"""PyTorch's allocator rounds every block up to it."""


@dataclass
class Traced:
    """Bytes at the peak of a step that follows others, where it was, and what was alive at its stations."""

    peak: int = 0
    at: str = ""
    stations: dict[str, int] = field(default_factory=dict)


class Live(TorchDispatchMode):
    """Counts the storages that are alive."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.at = self._doing = ""
        self._sizes: dict[int, int] = {}

    def add(self, tensor: torch.Tensor) -> None:
        """Count a tensor's storage until it is gone."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._sizes:
            return
        size = -(-storage.nbytes() // BLOCK) * BLOCK
        self._sizes[key] = size
        self.now += size
        weakref.finalize(storage, self._gone, key)
        self._reached(self.now)

    def _gone(self, key: int) -> None:
        self.now -= self._sizes.pop(key)

    def _reached(self, size: int) -> None:
        if size > self.peak:
            self.peak, self.at = size, self._doing

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run it, and count what came out."""
        self._doing = str(func)
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self.add(leaf)
        if "flash_attention_for_cpu_backward" in self._doing:
            # A GPU sums the gradient of the queries in fp32, and those of shared keys for every head apart.
            query, key = args[1], args[2]
            shared = 4 * query.numel() if key.shape[1] != query.shape[1] else 0
            self._reached(self.now + 4 * query.numel() + shared)
        return out


def trace(config: RunConfig, entries: dict[str, Any]) -> Traced:
    """The peak of the second step of a run on one GPU. ``entries``: the model's config.json."""
    live, fake = Live(), FakeTensorMode(allow_non_fake_inputs=True)
    with _as_on_a_gpu(config):
        model = _filled(_build(config, entries), fake)
        reference = _filled(_build(config, entries).requires_grad_(False), fake) if second_model(config) else None
        for one in (model, reference):
            _autocast(one, config)
        with fake, live:
            for one in (model, reference):
                for tensor in [*one.parameters(), *one.buffers()] if one is not None else []:
                    live.add(tensor)
            return _steps(config, model, reference, live)


def _steps(config: RunConfig, model: Any, reference: Any, live: Live) -> Traced:
    learning = [weight for weight in model.parameters() if weight.requires_grad]
    fused = config.optim.optim != "adamw_torch"
    optimizer = torch.optim.AdamW(learning, lr=1e-4, fused=fused, foreach=None if fused else True)
    batches = min(config.optim.gradient_accumulation_steps, 2)
    found = Traced()
    for _ in range(2):
        found.stations.clear()
        live.peak = 0
        for _ in range(batches):
            found.stations["before"] = live.now
            loss = _loss(config, model, reference)
            found.stations["forward"] = live.now
            loss.backward()
            del loss
            found.stations["backward"] = live.now
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        found.stations["step"] = live.now
        optimizer.zero_grad()
    found.peak, found.at = live.peak, live.at
    return found


def _loss(config: RunConfig, model: Any, reference: Any) -> torch.Tensor:
    """As our trainers and TRL's do it on a GPU: log-probabilities of all tokens, or those of pairs against before."""
    ids = torch.zeros(sequences(config), longest(config), dtype=torch.long)
    words = {"input_ids": ids, "attention_mask": torch.ones_like(ids) if has_mask(config) else None}
    words |= {"labels": ids, "fused_lm_head": True, "use_cache": False}
    said = model(**words).log_probs
    if config.stage != "dpo":
        return -said.sum() / ids.numel()
    with torch.no_grad():
        if reference is not None:
            then = reference(**words).log_probs
        else:
            with model.disable_adapter():
                then = model(**words).log_probs
    chosen, rejected = (said - then).sum(1).chunk(2)
    loss: torch.Tensor = -torch.nn.functional.logsigmoid(chosen - rejected).mean()
    return loss


def _build(config: RunConfig, entries: dict[str, Any]) -> Any:
    kind = transformers.AutoConfig.for_model(**{key: value for key, value in entries.items() if key != "architectures"})
    half = config.parallel.deepspeed and config.precision.dtype != "fp32"
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(
            kind, dtype=weight_dtype(config), attn_implementation=config.model.attn_implementation
        )
        add_fused_lm_head(model)
        if config.model.adapter == "lora":
            model = new_adapter(model, config, "causal")
        if half:
            model = model.to(torch.bfloat16)
    if config.model.gradient_checkpointing:
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    return model.train()


def _filled(model: Any, fake: FakeTensorMode) -> Any:
    """The model with fake tensors in place of those without storage; tied weights stay one."""
    made: dict[int, tuple[Any, Any]] = {}
    with fake:
        for module in model.modules():
            for name, weight in module._parameters.items():
                if weight is not None and id(weight) not in made:
                    new = torch.nn.Parameter(torch.empty(weight.shape, dtype=weight.dtype), weight.requires_grad)
                    made[id(weight)] = (new, weight)
                if weight is not None:
                    module._parameters[name] = made[id(weight)][0]
            for name, value in module._buffers.items():
                if value is not None:
                    module._buffers[name] = torch.empty(value.shape, dtype=value.dtype)
    return model


def _autocast(model: Any, config: RunConfig) -> None:
    """As accelerate's prepare_model does it."""
    if model is None or not formats(config).autocast:
        return
    forward = torch.autocast("cpu", torch.bfloat16, **TRAINING.to_kwargs())(model.forward.__func__)
    model.forward = MethodType(convert_outputs_to_fp32(MethodType(forward, model).__func__), model)


def _dropout(x: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    return torch.native_dropout(x, p, True)[0] if training and p else x


@contextmanager
def _as_on_a_gpu(config: RunConfig) -> Iterator[None]:
    # Plain functions: a Mock would keep the tensors that it was called with.
    def nothing(*_: Any, **__: Any) -> None:
        return None

    with (
        mock.patch.multiple(tiles, _forward_tile=nothing, _backward_tile=nothing, _addmm_fp32=nothing),
        # What looks into the tensors: rows of one length need no mask, and there is nothing packed.
        mock.patch.object(masking_utils, "is_tracing", lambda _: has_mask(config)),
        mock.patch.object(masking_utils, "find_packed_sequence_indices", nothing),
        # A GPU's dropout keeps a byte a number, the CPU's a whole number.
        mock.patch.object(torch.nn.functional, "dropout", lambda x, p=0.5, training=True, *_: _dropout(x, p, training)),
    ):
        yield
