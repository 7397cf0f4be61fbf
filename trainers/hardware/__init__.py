"""What is known of GPU types before any is at hand: one data file, read by the planner and by the trainers.

The standard library only. What NVML measured of a card beats what stands here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any

from trainers.hardware.gpu_types import TYPES

_MIB, _GIB = 1024**2, 1024**3


@dataclass(frozen=True)
class GpuType:
    """A type of GPU. Sizes in bytes, speeds in FLOP/s (dense, without sparsity) and bytes/s. Unknown is None.

    ``usable`` is what a process can fill: ``memory`` less what driver and ECC keep back.
    """

    name: str
    """The word of GRES and of profiles: a800, a40, h100."""
    memory: int
    usable: int
    bf16: float | None
    fp16: float | None
    fp8: float | None
    fp32: float | None
    bandwidth: float | None
    compute_capability: tuple[int, int] | None
    link: str
    """What joins two cards of a node: nvlink, pcie."""
    link_bandwidth: float | None
    """Bytes/s of one card to another, both directions together, as the data sheet counts."""
    inferred: tuple[str, ...] = ()
    """Names of the fields that no source states and that were concluded from a like card."""
    source: str = ""

    @property
    def half(self) -> float | None:
        """FLOP/s at the best half precision for training: bf16, else fp16."""
        return self.bf16 or self.fp16


def types() -> Mapping[str, GpuType]:
    """All that is known, by key: the type's word (``a100``), for its variants with theirs (``a100_80gb_pcie``)."""
    return {key: known.gpu for key, known in _table().items()}


@cache
def find(name: str, memory: int | None = None) -> GpuType | None:
    """The type that a name means: one of NVML's, a GRES type, a feature, a word of a profile.

    ``memory`` are the bytes that NVML told of the card. They decide between variants, and stand in the answer.
    None for a name that is not known, and for a part of a card (MIG, vGPU), whose speed is not the card's.
    """
    known = _find(name, memory)
    if known is None:
        return None
    return known.gpu if memory is None else _with_memory(known.gpu, memory)


def is_a(word: str, name: str, memory: int | None = None) -> bool:
    """Whether the card of this name and memory is what a word of a profile asks for.

    ``a100`` asks for any A100, ``a100_80gb`` for one with 80 GB, ``a100_80gb_pcie`` for that one.
    """
    kind, _ = _split(name)
    asked, card = _find(word), _find(name, memory)
    if asked is None or card is None:
        return kind is not None and kind == word.lower()
    if asked.gpu.name != card.gpu.name:
        return False
    telling = {each for known in _kin(asked.gpu.name) for each in known.words}
    _, said = _split(word)
    return said & telling <= card.words


def nearest(name: str) -> str | None:
    """The key that is spelt most like a name, for "did you mean"."""
    import difflib

    close = difflib.get_close_matches("_".join(_words(name)), types(), n=1, cutoff=0.5)
    return close[0] if close else None


def short_name(name: str) -> str | None:
    """The short lower-case type as GRES calls it: 'NVIDIA A800 80GB PCIe' -> 'a800'.

    It ends with the first word that holds a digit and what makes another card of it: 'rtx2080ti'.
    """
    return _split(name)[0]


# --- names ------------------------------------------------------------------------------------

_MAKERS = frozenset({"nvidia", "tesla", "geforce", "quadro", "grid", "gpu"})
_OTHER_CARDS = frozenset({"ti", "super", "ada", "d"})

_PART = 0.7
"""A card with less than this share of its type's memory is a part of one."""


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word and word not in _MAKERS]


def _split(name: str) -> tuple[str | None, frozenset[str]]:
    """The short name, and the words behind it as the table has them: 'sxm4' is sxm; '80g' and '80' are 80gb."""
    words = _words(name)
    model = next((n for n, word in enumerate(words, 1) if any(c.isdigit() for c in word)), len(words))
    kind = words[:model] + [word for word in words[model:] if word in _OTHER_CARDS]
    plain = (re.sub(r"^sxm\d$", "sxm", word) for word in words[model:])
    return "".join(kind).replace("rtxa", "a") or None, frozenset(re.sub(r"^(\d+)g?$", r"\1gb", word) for word in plain)


# --- the table --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Known:
    gpu: GpuType
    words: frozenset[str]
    also: frozenset[str]


def _find(name: str, memory: int | None = None) -> _Known | None:
    if re.search(r"\bmig\b|\d+g\.\d+gb", name.lower()):
        return None
    word, said = _split(name)
    kin = _kin(word)
    if kin and memory is not None:
        closest = min((known.gpu.memory for known in kin), key=lambda size: abs(size - memory))
        kin = [known for known in kin if known.gpu.memory == closest and memory >= _PART * closest]
    return max(kin, key=lambda known: len(said & known.words), default=None)


def _kin(word: str | None) -> list[_Known]:
    return [known for known in _table().values() if word == known.gpu.name or word in known.also]


@cache
def _table() -> Mapping[str, _Known]:
    return {
        key: _Known(
            _gpu(entry.get("of", key), entry),
            words=frozenset(key.split("_")[1:]) | frozenset(entry.get("words", ())),
            also=frozenset(entry.get("also", ())),
        )
        for key, entry in TYPES.items()
    }


def _gpu(name: str, entry: Mapping[str, Any]) -> GpuType:
    speeds = {speed: 1e12 * number for speed, number in entry["tflops"].items()}
    inferred = tuple(entry.get("inferred", ()))
    if unknown := set(inferred) - {field.name for field in fields(GpuType)}:
        raise ValueError(f"{name}: no such field: {', '.join(sorted(unknown))}")
    return GpuType(
        name=name,
        memory=entry["memory_mib"] * _MIB,
        usable=int(entry["usable_gib"] * _GIB),
        bf16=speeds.get("bf16"),
        fp16=speeds.get("fp16"),
        fp8=speeds.get("fp8"),
        fp32=speeds.get("fp32"),
        bandwidth=1e9 * entry["bandwidth"],
        compute_capability=entry["compute_capability"],
        link=entry["link"],
        link_bandwidth=1e9 * entry["link_bandwidth"],
        inferred=inferred,
        source=entry["source"],
    )


def _with_memory(gpu: GpuType, memory: int) -> GpuType:
    """With the memory that was measured. What driver and ECC keep back is the table's."""
    if memory == gpu.memory:
        return gpu
    kept = gpu.memory - gpu.usable
    return replace(gpu, memory=memory, usable=memory - kept, inferred=tuple(dict.fromkeys((*gpu.inferred, "usable"))))
