"""``python -m trainers.prepare RUN_DIR/run.yaml``: tokenise the rows of a run before its job takes a GPU.

The run then finds them by their fingerprint. Needs no GPU. Exit code 0, or that of the error.
"""

from __future__ import annotations

import sys
from pathlib import Path

from trainers.__main__ import read_run
from trainers.data.examples import load_examples
from trainers.errors import InputProblem, TrainerError


def main(arguments: list[str]) -> int:
    """Fill the cache for ``run.yaml`` and say where it lies; returns the exit code."""
    if len(arguments) != 1:
        print("usage: python -m trainers.prepare RUN_DIR/run.yaml", file=sys.stderr)
        return 2
    path = Path(arguments[0]).absolute()
    try:
        if not path.is_file():
            raise InputProblem(f"{path}: no such file", hint="name the run.yaml of a run directory")
        config = read_run(path)
        examples = load_examples(config)
        from trainers.data.tokenised import TEXT_STAGES, prepare_rows
        from trainers.model.load import load_tokenizer

        if config.stage not in TEXT_STAGES:
            raise InputProblem(
                f"stage {config.stage} tokenises when it trains", hint=f"prepare {', '.join(TEXT_STAGES)}"
            )
        rows = prepare_rows(config, path.parent, load_tokenizer(config.model), examples)
    except TrainerError as e:
        print(f"error: {e.message}\nhint: {e.hint}", file=sys.stderr)
        return e.exit_code
    print(f"rows: {rows.words()}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
