"""The rows of a text stage as token ids, ready to train on: from the cache, or made and kept there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset

from trainers.config import RunConfig
from trainers.data import cache
from trainers.data.dataset import tokenise
from trainers.data.documents import for_masked_token, for_next_token
from trainers.data.examples import Examples
from trainers.data.kinds import Texts
from trainers.data.packing import Row, pack
from trainers.errors import InputProblem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEXT_STAGES = ("cpt", "mlm", "sft", "stage1", "stage2")
"""The stages whose rows are made here. TRL's trainers tokenise those of the others."""

_HOW_NOT_WHAT = {"cache_dir"}
"""Fields of ``data`` that do not change the rows."""


@dataclass(frozen=True)
class TokenRows:
    """Rows of a run, which lie on disk and not in memory."""

    train: Dataset | None
    """None where they are streamed."""
    held_out: Dataset | None
    """Never packed, so that what is measured on them does not depend on packing."""
    counts: dict[str, int]
    """What became of the rows of the files: see ``make_rows``; ``bad`` ones were left out."""

    def words(self) -> str:
        """The counts in one line."""
        return ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in self.counts.items())


def prepare_rows(config: RunConfig, run_dir: Path, tokenizer: PreTrainedTokenizerBase, examples: Examples) -> TokenRows:
    """Token ids of all rows of a run of one of TEXT_STAGES. Raises InputProblem.

    They are kept in ``data.cache_dir``, or beside the run directories in ``.tokenised``, and made by one process.
    To be called before processes talk to each other: making them may take long.
    """
    home = Path(config.data.cache_dir) if config.data.cache_dir else run_dir.absolute().parent / ".tokenised"

    def build(folder: Path) -> None:
        counts: Counter[str] = Counter()
        if not config.data.streaming:
            counts["training"] = cache.write_rows(
                folder / "train.arrow", make_rows(config, tokenizer, examples.train, "training", counts)
            )
            if examples.skipped.bad:
                counts["left_out"] = examples.skipped.bad
            if not counts["training"]:
                raise InputProblem("no training rows are left", hint="look at data.train_files")
        counts["held_out"] = cache.write_rows(
            folder / "held_out.arrow", make_rows(config, tokenizer, examples.held_out, "held-out", Counter())
        )
        cache.write_counts(folder, counts)

    folder = cache.find_or_build(home / _fingerprint(config, tokenizer, examples), build)
    train, held_out = (cache.read_rows(folder / f"{name}.arrow") for name in ("train", "held_out"))
    return TokenRows(train, held_out, cache.read_counts(folder))


def make_rows(
    config: RunConfig, tokenizer: PreTrainedTokenizerBase, rows: Iterable[Any], name: str, counts: Counter[str]
) -> Iterator[Row]:
    """The rows of one of TEXT_STAGES as token ids, one after the other; ``training`` rows packed, if they are to be.

    Counted are, for conversations, ``truncated`` and ``dropped`` ones; for plain text ``documents``, ``tokens``,
    and how many documents were ``cut`` into several rows or ``skipped`` as empty; and the rows that were ``packed``.
    """
    length, packing = config.data.max_length, name == "training" and getattr(config.method, "packing", False)
    if config.stage == "sft":
        counts.update(truncated=0, dropped=0)
        made = tokenise(rows, tokenizer, length, name, counts)
    else:
        counts.update(documents=0, tokens=0, cut=0, skipped=0)
        if config.stage == "mlm":
            made = for_masked_token(rows, tokenizer, length, counts=counts)
        else:
            made = for_next_token(rows, tokenizer, length, eos=config.method.append_eos, counts=counts)
    if packing:
        made = pack(_counted(made, counts), length)
    yield from made
    if isinstance(rows, Texts):
        # Documents without a word never get as far as the tokenizer.
        counts["skipped"] += rows.empty


def _counted(rows: Iterable[Row], counts: Counter[str]) -> Iterator[Row]:
    for row in rows:
        counts["packed"] += 1
        yield row


def _fingerprint(config: RunConfig, tokenizer: PreTrainedTokenizerBase, examples: Examples) -> str:
    """Of all that decides what the rows are, and in which order they come."""
    data = config.data
    method = config.method.model_dump(include={"packing", "append_eos"})
    versions = [version(package) for package in ("tokenizers", "transformers")]
    stamp: Any = cache.source_stamp([*data.train_files, *data.eval_files])
    if stamp is None:
        # The hub may give us other rows tomorrow under the same name: the rows themselves are the mark.
        stamp = [cache.fingerprint(*(asdict(row) for row in rows)) for rows in (examples.train, examples.held_out)]
    return cache.fingerprint(
        config.stage,
        data.model_dump(exclude=_HOW_NOT_WHAT),
        method,
        config.optim.seed,
        stamp,
        versions,
        tokenizer.backend_tokenizer.to_str().encode(),
        [tokenizer.chat_template, {name: str(token) for name, token in tokenizer.special_tokens_map.items()}],
    )
