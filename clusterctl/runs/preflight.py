"""What can be known on the login node before a job waits a night for it: data rows and the model directory.

Reads every row with the trainer's own reader, which needs the standard library only; the import boundary of
docs/decisions.md names this one exception.
"""

from __future__ import annotations

from pathlib import Path

from clusterctl.errors import UsageProblem
from clusterctl.paths import is_file, user_path
from trainers.config import RunConfig


def check(config: RunConfig) -> None:
    """Look at what the run will read.

    Raises:
        UsageProblem: a data file is empty or has bad rows (with their numbers), or the model is no model.
    """
    from trainers.data.examples import load_examples
    from trainers.errors import InputProblem

    model = Path(config.model.model_name_or_path)
    if model.is_absolute() and not is_file(user_path(model / "config.json")):
        raise UsageProblem(
            f"model.model_name_or_path: {model} holds no model (no config.json)",
            hint="name the directory that save_pretrained or `hf download` wrote",
        )
    try:
        load_examples(config)
    except InputProblem as e:
        raise UsageProblem(e.message, hint=e.hint) from e
