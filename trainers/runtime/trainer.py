"""What every stage adds to TRL's trainers: checkpoints that can be trusted, and honest numbers."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers.trainer import TRAINING_ARGS_NAME

from trainers.errors import RunProblem
from trainers.runtime import checkpoints
from trainers.runtime.meter import Meter
from trainers.runtime.stopping import Stop


class RunTrainer:
    """A mixin in front of a TRL trainer. The checkpoints live in ``RUN_DIR/checkpoints``."""

    def attach(self, run_dir: Path, meter: Meter, stop: Stop, keep: int | None) -> None:
        """Give the trainer what it needs to know of its run; before ``train``."""
        self.run_dir, self.meter, self.stop, self.keep = run_dir, meter, stop, keep

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """None: the run directory describes the run."""

    def get_batch_samples(self, *args: Any) -> Any:
        """Count the real tokens of the next step, without waiting for the device."""
        batches, items = super().get_batch_samples(*args)  # type: ignore[misc]
        self.meter.tokens += sum(batch["attention_mask"].sum() for batch in batches)
        return batches, items

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Keep the loss of the step for the tripwires."""
        loss: torch.Tensor = super().training_step(*args, **kwargs)  # type: ignore[misc]
        self.meter.step_loss += loss
        return loss

    def _get_grad_norm(self, *args: Any, **kwargs: Any) -> Any:
        norm = super()._get_grad_norm(*args, **kwargs)  # type: ignore[misc]
        self.meter.grad_norm = None if norm is None else float(norm)
        return norm

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the speed of all processes together to every training line."""
        if "loss" in logs:
            tokens = torch.as_tensor(self.meter.tokens, device=self.args.device)
            logs |= self.meter.take(int(self.accelerator.reduce(tokens, "sum")))
        super().log(logs, start_time)  # type: ignore[misc]

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        super()._save(output_dir, state_dict)  # type: ignore[misc]
        # A pickle with this run's absolute path in it; run.yaml says the same.
        (Path(output_dir or self.args.output_dir) / TRAINING_ARGS_NAME).unlink(missing_ok=True)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        step = self.state.global_step
        folder = self.run_dir / checkpoints.FOLDER / f"checkpoint-{step}"
        if self.is_world_process_zero():
            checkpoints.remove(folder)
        self.accelerator.wait_for_everyone()
        try:
            super()._save_checkpoint(model, trial)  # type: ignore[misc]
            self.accelerator.wait_for_everyone()
            if self.is_world_process_zero():
                checkpoints.mark_complete(folder, step)
                checkpoints.rotate(self.run_dir, self.keep)
        except (OSError, RuntimeError, SafetensorError) as e:
            raise self._not_saved(folder, e) from e

    def save_final(self) -> None:
        """Write ``final_model/``: the adapter or the model, with its tokenizer. Raises RunProblem."""
        folder = self.run_dir / "final_model"
        try:
            self.save_model(str(folder))
        except (OSError, RuntimeError, SafetensorError) as e:
            raise self._not_saved(folder, e) from e

    def _not_saved(self, folder: Path, error: Exception) -> RunProblem:
        """Delete what is torn, which also makes room again, and say what is left."""
        # torch and safetensors do not always pass on the error number.
        full = shutil.disk_usage(self.run_dir).free < 2**20
        reason = os.strerror(errno.ENOSPC) if full else str(error).splitlines()[0]
        checkpoints.remove(folder)
        kept = checkpoints.newest_step(self.run_dir)
        left = f"checkpoint-{kept} is kept" if kept is not None else "there is no earlier checkpoint"
        return RunProblem(
            f"{folder.name} could not be saved: {reason}; {left}",
            hint="make room or raise the quota (output.save_total_limit keeps fewer), then resume the run",
        )
