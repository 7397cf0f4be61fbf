"""What can be known on the login node before a job waits a night for it: data rows and the model directory.

Reads rows with the trainer's own reader, which needs the standard library only; the import boundary of
docs/decisions.md names this one exception. Parquet files, saved data sets and the hub are not opened here.
"""

from __future__ import annotations

from pathlib import Path

from clusterctl.errors import UsageProblem
from clusterctl.paths import is_file, user_path
from trainers.config import RunConfig


def check(config: RunConfig, planned: frozenset[str] = frozenset()) -> tuple[str, ...]:
    """Look at what the run will read. ``planned`` are directories that an earlier run is going to make.

    Returns what could not be looked at here, in words.

    Raises:
        UsageProblem: a data file is empty or has bad rows (with their numbers), or the model is none or does not fit.
    """
    from trainers import templates
    from trainers.data.examples import TEXT_STAGES, look_at_examples
    from trainers.errors import InputProblem
    from trainers.model.fit import check_fit, read_config

    model = Path(config.model.model_name_or_path)
    if model.is_absolute() and str(model) not in planned and not is_file(user_path(model / "config.json")):
        raise UsageProblem(
            f"model.model_name_or_path: {model} holds no model (no config.json)",
            hint="name the directory that save_pretrained or `hf download` wrote",
        )
    try:
        check_fit(config, read_config(config.model))
        if config.stage not in TEXT_STAGES and model.is_absolute():
            templates.check_tokenizer(user_path(model), config.model.chat_template)
        if functions := getattr(config.method, "reward_functions", []):
            from trainers import rewards

            rewards.check(functions)
        return tuple(look_at_examples(config))
    except InputProblem as e:
        raise UsageProblem(e.message, hint=e.hint) from e
