"""Stage ``stage2``: what it knows."""

from __future__ import annotations

from typing import Literal

from trainers.config.stages.stage1 import Staged


class Stage2(Staged):
    """All parameters learn."""

    stage: Literal["stage2"]
