"""``python -m trainers.show RUN.yaml [SAMPLES]``: what a run is going to train on, as one line of JSON.

Made by the trainers' own tokenisation, so what it shows is what the model gets. ``clusterctl plan --show-batch``
runs it in the job's environment and makes it readable. Needs no GPU and loads no model.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

from trainers.__main__ import read_run
from trainers.config import RunConfig
from trainers.data.examples import load_examples
from trainers.errors import InputProblem, TrainerError

SAMPLES = 3
"""So many are shown unless more are asked for."""

_LOOKED_AT = 200
"""Blocks of a stream that are counted: nobody knows how many there are."""


def main(arguments: list[str]) -> int:
    """Print the answer, or the error, as JSON; returns the exit code."""
    if not 1 <= len(arguments) <= 2 or not all(count.isdigit() for count in arguments[1:]):
        print("usage: python -m trainers.show RUN.yaml [SAMPLES]", file=sys.stderr)
        return 2
    path, said = Path(arguments[0]).absolute(), _Said()
    logging.basicConfig(level=logging.WARNING, handlers=[said], force=True)
    try:
        if not path.is_file():
            raise InputProblem(f"{path}: no such file", hint="name a run.yaml")
        shown = show(read_run(path), path.parent, int(arguments[1]) if len(arguments) > 1 else SAMPLES)
    except TrainerError as e:
        print(json.dumps({"error": {"message": e.message, "hint": e.hint}}))
        return e.exit_code
    print(json.dumps({**shown, "notes": [*shown["notes"], *said.lines]}))
    return 0


class _Said(logging.Handler):
    """Keeps what the tokenisation says of the rows."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith("trainers") and record.getMessage() not in self.lines:
            self.lines.append(record.getMessage())


def show(config: RunConfig, folder: Path, count: int) -> dict[str, Any]:
    """The first ``count`` samples in pieces, and numbers over all rows. Raises InputProblem.

    ``folder`` is where a run directory would be: text stages keep their tokens beside it, and the run finds them.
    """
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    examples = load_examples(config)
    from trainers.data import pieces
    from trainers.data.tokenised import TEXT_STAGES, make_rows, prepare_rows
    from trainers.model.load import load_tokenizer

    tokenizer, length = load_tokenizer(config.model), config.data.max_length
    counts: dict[str, int] = {}
    rows: Any
    if config.data.streaming:
        rows = list(islice(make_rows(config, tokenizer, examples.train, "training", Counter()), _LOOKED_AT))
    elif config.stage in TEXT_STAGES:
        prepared = prepare_rows(config, folder, tokenizer, examples)
        rows, counts = prepared.train, prepared.counts
    elif config.stage in ("dpo", "reward", "kto"):
        from trainers.data.answered import tokenise_labelled, tokenise_pairs

        if config.stage == "kto":
            made = tokenise_labelled(examples.train, tokenizer, length, "training")
        else:
            made = tokenise_pairs(examples.train, tokenizer, length, "training", cut=config.stage == "dpo")
        rows, counts = made.rows, {"truncated": made.truncated, "dropped": made.dropped}
    else:
        rows, counts = pieces.prompts(config, tokenizer, examples.train)
    cut = pieces.cutter(config, tokenizer)
    return {
        "schema": 1,
        "stage": config.stage,
        "unit": "blocks" if len(rows) and "seq_lengths" in rows[0] else "rows",
        "rows": None if config.data.streaming else len(rows),
        "counts": counts,
        **pieces.measure(map(cut, rows)),
        "samples": [
            [(kind, text if isinstance(text, str) else tokenizer.decode(text)) for kind, text in cut(row)]
            for row in islice(rows, count)
        ],
        "notes": examples.skipped.left_out(),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
