"""Stage ``grpo``: answers of the model's own, compared with others to the same prompt. On TRL's GRPOTrainer."""

from __future__ import annotations

from typing import Any

from trl import GRPOConfig, GRPOTrainer

from trainers.config.stages.grpo import Grpo
from trainers.data.examples import Examples
from trainers.run import Run
from trainers.stages.prepared import Prepared
from trainers.stages.rollouts import RolloutTrainer, prepare_rollouts


class GrpoTrainer(RolloutTrainer, GRPOTrainer):
    """GRPOTrainer with our rewards, reference and evaluation."""


def prepare(config: Grpo, run: Run, arguments: dict[str, Any], examples: Examples) -> Prepared:
    """A GRPO run, ready to start. Raises TrainerError."""
    own = {
        "loss_type": config.method.loss_type,
        "scale_rewards": config.method.scale_rewards,
        "importance_sampling_level": "token",
        "use_bias_correction_kl": True,
    }
    return prepare_rollouts(config, run, arguments, examples, (GrpoTrainer, GRPOConfig), own)
