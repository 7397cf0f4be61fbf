"""In the place of a stage that there is not."""

from __future__ import annotations

from typing import Any

from trainers.config import RunConfig, Stage


class Unknown(RunConfig):
    """Stands for a stage that there is not, so that all its other errors are found too."""

    stage: Stage
    engine: Any = "trl"
    method: Any = None
