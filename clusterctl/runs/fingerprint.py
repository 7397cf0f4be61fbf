"""What tells whether a test and a run, or two runs, are of the same configuration."""

from __future__ import annotations

import hashlib
import json

from clusterctl.compose import Composed

# Left out of the fingerprint: what neither memory nor correctness of a step depends on.
_NOT_IN_FINGERPRINT = {
    "name": True,
    "kind": True,
    "tracking": True,
    "eval": True,
    "output": True,
    "model": {"adapter_name_or_path"},
    "optim": {"max_steps", "num_train_epochs", "seed", "learning_rate", "warmup_steps", "lr_scheduler_type"},
}


def fingerprint(composed: Composed, base: str | None = None) -> str:
    """Names the configuration as far as fitting and working go: the same for a test and its full run.

    ``base`` stands for the model of a pipeline's member, whose directory has another name every time.
    """
    config = composed.config.model_dump(mode="json", exclude=_NOT_IN_FINGERPRINT)  # type: ignore[arg-type]
    config["model"]["model_name_or_path"] = base or config["model"]["model_name_or_path"]
    config["data"] = {k: v for k, v in config["data"].items() if k not in ("eval_files", "validation_split")}
    profile = composed.profile
    # Memory that was reckoned follows from the rest, and from the nodes that take work today.
    mem = profile.mem if composed.mem_said else None
    text = json.dumps([config, [profile.gpu_type, profile.gpus_per_node, profile.nodes, mem]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
