"""Local files of a configuration by absolute path, since the job runs elsewhere. What is not there ends here."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from clusterctl.errors import UsageProblem
from clusterctl.paths import is_dir, is_file, user_path
from trainers import templates
from trainers.config import RunConfig

_HUB_DATA = re.compile(r"[A-Za-z0-9][\w.-]*/(?!.*\.(csv|jsonl?|txt|parquet)(\.gz)?$)[\w.-]+")
"""``org/name``: a data set of the hub, unless it ends like a file."""


def make_absolute(config: RunConfig, planned: frozenset[str] = frozenset()) -> RunConfig:
    """The same configuration with every local path absolute. Names on the hub stay.

    ``planned`` are directories that an earlier run is going to make.

    Raises:
        UsageProblem: every file and directory that is missing.
    """
    look = _Look(planned)
    data, model = config.data, config.model
    result = config.model_copy(
        update={
            "data": data.model_copy(
                update={
                    "train_files": [look.data_set(name, "data.train_files") for name in data.train_files],
                    "eval_files": [look.data_set(name, "data.eval_files") for name in data.eval_files],
                    "cache_dir": str(user_path(data.cache_dir)) if data.cache_dir else None,
                }
            ),
            "model": model.model_copy(
                update={
                    "model_name_or_path": look.model(model.model_name_or_path, "model.model_name_or_path"),
                    "chat_template": look.template(model.chat_template) if model.chat_template else None,
                }
            ),
            "method": config.method.model_copy(update=_rewards(config.method, look)),
        }
    )
    if look.missing:
        raise UsageProblem(
            "\n  ".join(look.missing), hint="paths are relative to the working directory; set them with --set"
        )
    return result


@dataclass
class _Look:
    """Turns what was written into paths, and notes what is missing."""

    planned: frozenset[str]
    missing: list[str] = field(default_factory=list)

    def file(self, text: str, key: str) -> str:
        path = user_path(text)
        if not is_file(path):
            self.missing.append(f"{key}: there is no file {path}")
        return str(path)

    def data_set(self, text: str, key: str) -> str:
        """A file, a saved data set, or a name on the hub."""
        path = user_path(text)
        if path.exists():
            return str(path)
        if _HUB_DATA.fullmatch(text) and not is_dir(path.parent):
            return text
        self.missing.append(f"{key}: there is no file {path}{_near(path)}")
        return text

    def model(self, text: str, key: str) -> str:
        """A directory, or a name on the hub."""
        if text in self.planned:
            return text
        path = user_path(text)
        if is_dir(path):
            return str(path)
        # models/typo is no name on the hub where there is a folder models.
        if text.startswith(("/", "./", "../", "~")) or text.count("/") > 1 or ("/" in text and is_dir(path.parent)):
            self.missing.append(f"{key}: there is no directory {path}{_near(path)}")
        return text

    def template(self, text: str) -> str:
        """The name of a shipped chat template, or a file."""
        if text in templates.SHIPPED:
            return text
        path = user_path(text)
        if not is_file(path):
            near = get_close_matches(text, templates.SHIPPED, n=1)
            said = f" - did you mean {near[0]}?" if near else f"; shipped are {', '.join(templates.SHIPPED)}"
            self.missing.append(f"model.chat_template: there is no file {path}{said}")
        return str(path)


def _near(path: Path) -> str:
    """`` - did you mean X?`` for a name like that of something beside it, or nothing."""
    near = get_close_matches(path.name, [other.name for other in path.parent.glob("*")], n=1)
    return f" - did you mean {near[0]}?" if near else ""


def _rewards(method: Any, look: _Look) -> dict[str, Any]:
    """What a stage on rewards names: FILE.py:FUNCTION, and a model that rates."""
    found: dict[str, Any] = {}
    if functions := getattr(method, "reward_functions", None):
        parts = [name.rpartition(":") for name in functions]
        key = "method.reward_functions"
        found["reward_functions"] = [f"{look.file(path, key)}:{name}" if path else name for path, _, name in parts]
    if rater := getattr(method, "reward_model", None):
        found["reward_model"] = look.model(rater, "method.reward_model")
    return found
