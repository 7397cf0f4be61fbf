"""The site file: where runs happen. Merged from /etc, user and project files and the environment.

Every top-level key remembers where its value came from. Without any file the defaults serve one machine.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clusterctl.assets import user_config_dir
from clusterctl.paths import is_file, user_path

if TYPE_CHECKING:
    from clusterctl.schema import Site

FILE_NAME = "clusterctl.yaml"
KEYS = (
    "output_root",
    "scheduler",
    "partitions",
    "account",
    "qos",
    "gpu_request",
    "modules",
    "environment",
    "env",
    "hugging_face",
    "tracking",
    "notify",
    "secrets",
)
"""The fields of ``schema.Site``, known here without pydantic."""
_SCHEDULERS = ("auto", "slurm", "local")
_FROM_ENVIRONMENT = {"CLUSTERCTL_OUTPUT_ROOT": "output_root", "CLUSTERCTL_SCHEDULER": "scheduler"}


@dataclass(frozen=True)
class Settings:
    """Raw values by top-level key, and the origin of each. ``site`` validates them (and loads pydantic)."""

    values: Mapping[str, Any]
    origins: Mapping[str, str]

    @property
    def output_root(self) -> Path:
        """The folder of all run directories; relative to the working directory.

        Raises:
            UsageProblem: it cannot be looked at.
        """
        return user_path(str(self.values.get("output_root") or "logs"))

    @property
    def scheduler(self) -> str:
        """``auto``, ``slurm`` or ``local``."""
        return str(self.values.get("scheduler") or "auto")

    def site(self) -> Site:
        """The validated site.

        Raises:
            UsageProblem: every error of the files at once, each with file and line.
        """
        from clusterctl.schema import Site
        from clusterctl.validation import validate

        return validate(Site, dict(self.values), self._where, what="site file")

    def _where(self, dotted: str) -> str:
        return self.origins.get(dotted) or self.origins.get(dotted.partition(".")[0], "default")


def site_files() -> list[Path]:
    """The site files that exist, weakest first. ``$CLUSTERCTL_SITE`` names one instead of all others.

    Raises:
        UsageProblem: whether one exists cannot be seen. To go on without it could mean another output_root.
    """
    if named := os.environ.get("CLUSTERCTL_SITE"):
        return [user_path(named)]
    folders = (Path("/etc/clusterctl"), user_config_dir(), Path())
    candidates = [user_path(folder / FILE_NAME) for folder in folders]
    return [path for path in candidates if is_file(path)]


def load() -> Settings:
    """Read the site files and the environment. Nothing heavy is imported when there is no file.

    Raises:
        UsageProblem: a file is unreadable or not YAML, has unknown keys, or not even ``status`` can do with it.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for path in site_files():
        from clusterctl import yaml_text

        document = yaml_text.read(path)
        values.update(document.values)
        origins.update({key: f"{path}:{line}" for key, line in document.lines.items()})
    for variable, key in _FROM_ENVIRONMENT.items():
        if value := os.environ.get(variable):
            values[key] = value
            origins[key] = f"${variable}"
    settings = Settings(values, origins)
    if not _plausible(values):
        settings.site()  # has the words for what is wrong
    return settings


def _plausible(values: Mapping[str, Any]) -> bool:
    """Whether what every command needs of the site is right; the rest waits for ``site`` and its pydantic."""
    return (
        set(values) <= set(KEYS)
        and isinstance(values.get("output_root", ""), str)
        and values.get("scheduler", "auto") in _SCHEDULERS
    )
