"""Experiment trackers: where metrics go besides the run directory.

Each opens before training, so that a missing key is found out before GPU hours are spent. Once training runs,
no tracker can end it: one that fails is dropped with a warning. Keys come from the environment and are
never written.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from transformers import TrainerCallback

from trainers.config import RunConfig
from trainers.errors import RunProblem
from trainers.runtime.files import read_json, write_json

log = logging.getLogger(__name__)


class Tracker(Protocol):
    """One open tracker."""

    def log(self, values: dict[str, float], step: int) -> None:
        """Take over the values of a step."""

    def close(self) -> None:
        """Write what is left."""


class SwanLab:
    """https://swanlab.cn, in the cloud or in files below ``swanlab/``."""

    def __init__(self, config: RunConfig, run_dir: Path, run_id: str) -> None:
        import swanlab

        tracking = config.tracking
        if tracking.swanlab_mode == "local" and not find_spec("swanboard"):
            raise ImportError("mode local needs the package swanboard (pip install 'swanlab[dashboard]')")
        cloud = tracking.swanlab_mode == "cloud"
        folder = run_dir / "swanlab"
        folder.mkdir(exist_ok=True)
        swanlab.init(
            project=tracking.project,
            workspace=tracking.swanlab_workspace,
            name=config.name,
            mode="online" if cloud else tracking.swanlab_mode,
            log_dir=str(folder),
            id=run_id if cloud else None,
            resume="allow" if cloud else None,
            config=config.model_dump(mode="json"),
            # A batch job has nobody to ask; the terminal is in logs/ already; the rest in environment_info.txt.
            settings=swanlab.Settings(
                interactive=False,
                terminal={"proxy_type": "none"},
                probe={"runtime": False, "swanlab": False, "git": False, "requirements": False},
            ),
        )
        self._swanlab = swanlab

    def log(self, values: dict[str, float], step: int) -> None:
        """Take over the values of a step."""
        self._swanlab.log(values, step=step)

    def close(self) -> None:
        """Write what is left."""
        self._swanlab.finish()


class TensorBoard:
    """Event files below ``tensorboard/``."""

    def __init__(self, config: RunConfig, run_dir: Path, run_id: str) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run_dir / "tensorboard"))

    def log(self, values: dict[str, float], step: int) -> None:
        """Take over the values of a step."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


class WandB:
    """https://wandb.ai, online or in files below ``wandb/`` for ``wandb sync``."""

    def __init__(self, config: RunConfig, run_dir: Path, run_id: str) -> None:
        import wandb

        self._run = wandb.init(
            project=config.tracking.project,
            entity=config.tracking.wandb_entity,
            name=config.name,
            dir=str(run_dir),
            mode=config.tracking.wandb_mode,
            id=run_id,
            resume="allow" if config.tracking.wandb_mode == "online" else None,
            config=config.model_dump(mode="json"),
            settings=wandb.Settings(
                console="off", silent=True, disable_git=True, disable_code=True, x_disable_meta=True
            ),
        )

    def log(self, values: dict[str, float], step: int) -> None:
        """Take over the values of a step."""
        self._run.log(values, step=step)

    def close(self) -> None:
        """Write what is left."""
        self._run.finish()


KINDS: dict[str, Callable[[RunConfig, Path, str], Tracker]] = {
    "swanlab": SwanLab,
    "tensorboard": TensorBoard,
    "wandb": WandB,
}

HINTS = {
    "swanlab": "export SWANLAB_API_KEY for mode cloud, or set tracking.swanlab_mode to local or offline",
    "tensorboard": "pip install tensorboard",
    "wandb": "export WANDB_API_KEY, or set tracking.wandb_mode to offline",
}


class Tracking(TrainerCallback):
    """All trackers of a run. Only the first process opens any."""

    def __init__(self) -> None:
        self._open: dict[str, Tracker] = {}

    def start(self, config: RunConfig, run_dir: Path) -> None:
        """Open what ``tracking.report_to`` names, and TensorBoard's files in any case where it is installed.

        Raises RunProblem when one does not open.
        """
        names = dict.fromkeys(config.tracking.report_to)
        if find_spec("tensorboard"):
            names["tensorboard"] = None
        for name in names:
            try:
                self._open[name] = KINDS[name](config, run_dir, _run_id(run_dir))
            # What a tracker raises is not documented, and differs between its versions.
            except Exception as e:
                reason = " ".join(str(e).split())[:300] or type(e).__name__
                raise RunProblem(f"tracker {name} does not start: {reason}", hint=HINTS[name]) from e

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Pass a line of metrics on, as train/... and eval/..."""
        values = {
            f"eval/{name.removeprefix('eval_')}" if name.startswith("eval_") else f"train/{name}": value
            for name, value in (logs or {}).items()
            if isinstance(value, (int, float))
        }
        for name, tracker in list(self._open.items()):
            self._attempt(name, lambda open_tracker=tracker: open_tracker.log(values, state.global_step))

    def close(self) -> None:
        """Close all trackers."""
        for name, tracker in list(self._open.items()):
            self._attempt(name, tracker.close)
        self._open.clear()

    def _attempt(self, name: str, action: Callable[[], None]) -> None:
        try:
            action()
        # No trouble of a tracker is worth the run; metrics.jsonl has everything.
        except Exception as e:  # noqa: BLE001
            log.warning("tracker %s failed and is dropped: %s", name, e)
            del self._open[name]


def _run_id(run_dir: Path) -> str:
    """The name under which trackers know this run over all of its attempts."""
    path = run_dir / "tracking.json"
    if not read_json(path):
        write_json(path, {"id": uuid.uuid4().hex[:12]})
    return str(read_json(path)["id"])
