"""Stage ``rloo``: answers of the model's own, each against the mean of the others. On TRL's RLOOTrainer."""

from __future__ import annotations

from typing import Any

from trl import RLOOConfig, RLOOTrainer

from trainers.config.stages.rloo import Rloo
from trainers.data.examples import Examples
from trainers.run import Run
from trainers.stages.prepared import Prepared
from trainers.stages.rollouts import RolloutTrainer, prepare_rollouts


class RlooTrainer(RolloutTrainer, RLOOTrainer):
    """RLOOTrainer with our rewards, reference and evaluation."""


def prepare(config: Rloo, run: Run, arguments: dict[str, Any], examples: Examples) -> Prepared:
    """An RLOO run, ready to start. Raises TrainerError."""
    return prepare_rollouts(
        config, run, arguments, examples, (RlooTrainer, RLOOConfig), {"normalize_advantages": False}
    )
