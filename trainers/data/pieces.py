"""A row of token ids in pieces, each with what it is to the training: for people who want to look at it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from trainers.config import RunConfig
from trainers.data.dataset import IGNORED
from trainers.data.kinds import Prompt
from trainers.data.rows import BadRow
from trainers.data.template import ChatTemplate
from trainers.errors import InputProblem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Piece = tuple[str, Any]
"""What a stretch is, and its token ids: ``context`` (read, not learnt), ``trained``, ``masked`` (to be guessed),
``chosen``, ``rejected``, ``good``, ``bad``; or text: ``column`` (for reward functions), ``border`` (without any)."""

LEARNT = ("trained", "masked", "chosen", "rejected", "good", "bad")


def cutter(config: RunConfig, tokenizer: PreTrainedTokenizerBase) -> Callable[[Any], list[Piece]]:
    """What cuts a row of this stage into pieces."""
    if config.stage == "mlm":
        return _masked(config, tokenizer)
    return {"dpo": _pair, "reward": _pair, "kto": _rated, "grpo": _prompt, "rloo": _prompt, "ppo": _prompt}.get(
        config.stage, _causal
    )


def measure(rows: Iterable[Sequence[Piece]]) -> dict[str, Any]:
    """Tokens of all rows, how many of them are learnt, and the longest row (of a pair with its longer side)."""
    tokens = learnt = longest = 0
    for row in rows:
        sizes = [(kind, len(ids)) for kind, ids in row if kind not in ("column", "border")]
        sides = [size for kind, size in sizes if kind in ("chosen", "rejected")]
        whole = sum(size for _, size in sizes)
        tokens += whole
        learnt += sum(size for kind, size in sizes if kind in LEARNT)
        longest = max(longest, whole - (min(sides) if sides else 0))
    return {"tokens": tokens, "learnt": learnt, "longest": longest}


def prompts(
    config: RunConfig, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Prompt]
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """The prompts as the model is asked, with what the reward functions get; those that are too long are left out."""
    template = ChatTemplate(tokenizer)
    longest = config.method.verl.max_prompt_length if config.engine == "verl" else config.data.max_length
    rows = []
    for example in examples:
        try:
            text = template.text(example.prompt, ask=True)
        except BadRow as e:
            raise InputProblem(f"{example.origin}: {e}", hint="correct or delete this row") from None
        rows.append({"prompt_ids": tokenizer(text, add_special_tokens=False)["input_ids"], "columns": example.columns})
    kept = [row for row in rows if len(row["prompt_ids"]) <= longest]
    return kept, {"dropped": len(rows) - len(kept)}


def _causal(row: Any) -> list[Piece]:
    """Plain text and conversations, packed or not. The first token of each part is not predicted."""
    ids, start, found = row["input_ids"], 0, []
    labels = row.get("labels", ids)
    for length in row.get("seq_lengths") or [len(ids)]:
        found += [("border", "")] if start else []
        kinds = ["context"] + [
            "context" if label == IGNORED else "trained" for label in labels[start + 1 : start + length]
        ]
        found += _stretches(ids[start : start + length], kinds)
        start += length
    return found


def _masked(config: RunConfig, tokenizer: PreTrainedTokenizerBase) -> Callable[[Any], list[Piece]]:
    import torch

    from trainers.data.masking import Masking

    masking = Masking.of(tokenizer, config.method.mlm_probability, config.method.whole_word)
    dice = torch.Generator().manual_seed(config.optim.seed)

    def cut(row: Any) -> list[Piece]:
        _, labels = masking(torch.tensor([row["input_ids"]]), torch.tensor([row["words"]]), dice)
        kinds = ["context" if label == IGNORED else "masked" for label in labels[0].tolist()]
        return _stretches(row["input_ids"], kinds)

    return cut


def _stretches(ids: Sequence[int], kinds: Sequence[str]) -> Iterator[Piece]:
    for kind, group in groupby(zip(kinds, ids, strict=True), key=lambda item: item[0]):
        yield kind, [token for _, token in group]


def _pair(row: Any) -> list[Piece]:
    return [("context", row["prompt_ids"]), ("chosen", row["chosen_ids"]), ("rejected", row["rejected_ids"])]


def _rated(row: Any) -> list[Piece]:
    return [("context", row["prompt_ids"]), ("good" if row["label"] else "bad", row["completion_ids"])]


def _prompt(row: Any) -> list[Piece]:
    return [
        ("context", row["prompt_ids"]),
        *(("column", f"{name}: {value}") for name, value in row["columns"].items()),
    ]
