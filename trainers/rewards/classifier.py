"""``method.reward_model``: a sequence classifier with one output rates the answers, in its own chat template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainers.config import RunConfig
from trainers.errors import InputProblem
from trainers.model.device import weight_dtype
from trainers.model.load import load_trained
from trainers.model.paths import near_name

HINT = "method.reward_model names the final_model of a run of stage reward, or a classifier with one output"


def folder_of(name: str) -> str:
    """What ``from_pretrained`` is to load: a directory (of a run: its final_model), or a name on the hub."""
    path = Path(name).expanduser()
    return next((str(p) for p in (path / "final_model", path) if (p / "tokenizer_config.json").is_file()), name)


def load_reward_model(config: RunConfig) -> tuple[Any, Any]:
    """The classifier, ready to rate, and its tokenizer. Raises InputProblem.

    An adapter is merged into its base: TRL does not know adapters here.
    """
    from transformers import AutoTokenizer

    name = config.method.reward_model
    source = folder_of(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as e:
        reason = str(e).strip().splitlines()[0]
        raise InputProblem(f"reward model {name} has no tokenizer: {reason}", hint=f"{near_name(name)}{HINT}") from e
    if not tokenizer.chat_template:
        raise InputProblem(f"reward model {name} has no chat template of its own", hint=HINT)
    model = load_trained(source, "classifier", weight_dtype(config))
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    # TRL names its metrics after the last part of this.
    model.config._name_or_path = "reward_model"
    return model, tokenizer
