"""What every stage adds to TRL's trainers: checkpoints that can be trusted, and honest numbers."""

from __future__ import annotations

import errno
import functools
import logging
import os
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DistributedType, broadcast_object_list
from safetensors import SafetensorError
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import RandomSampler
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_utils import has_length

from trainers.data.arithmetic import StepCount, count_steps
from trainers.errors import RunProblem
from trainers.model.quantize import full_precision_adapter
from trainers.model.rope import save_beside_adapter
from trainers.runtime import autocast, checkpoints
from trainers.runtime.best import Best
from trainers.runtime.compute import flops_per_token, peak_flops
from trainers.runtime.meter import Meter
from trainers.runtime.order import LongestFirst, row_lengths
from trainers.runtime.stopping import Stop

log = logging.getLogger(__name__)


class RunTrainer:
    """A mixin in front of a TRL trainer. The checkpoints live in ``RUN_DIR/checkpoints``."""

    one_pass = False
    """Whether every token goes through a decoder once, forward and backward, so that its MFU can be told."""

    def __init__(self, **kwargs: Any) -> None:
        with full_precision_adapter(kwargs["model"]):
            super().__init__(**kwargs)

    def attach(self, run_dir: Path, meter: Meter, stop: Stop, keep: int | None, best: Best) -> None:
        """Give the trainer what it needs to know of its run; before ``train``."""
        self.run_dir, self.meter, self.stop, self.keep, self.best = run_dir, meter, stop, keep, best

    def create_accelerator_and_postprocess(self) -> None:
        """Say how autocast and DDP hold weights and gradients, before accelerate prepares a model."""
        super().create_accelerator_and_postprocess()  # type: ignore[misc]
        self.accelerator.autocast_handler = autocast.TRAINING
        self.accelerator.ddp_handler.gradient_as_bucket_view = True

    def _prepare_for_training(self, *args: Any) -> Any:
        """Let gradients lie in DDP's buckets alone, from the first batch on: else there are two of each.

        DDP makes those that it finds parts of its buckets. What autograd makes anew for a batch that is not sent
        yet lies outside, so they are filled with zeros after a step and not let go of.
        """
        if self.accelerator.distributed_type in (DistributedType.MULTI_GPU, DistributedType.MULTI_CPU):
            for weight in self.model.parameters():
                if weight.requires_grad:
                    weight.grad = torch.zeros_like(weight)
        model, rows = super()._prepare_for_training(*args)  # type: ignore[misc]
        if isinstance(model, DistributedDataParallel):
            model.zero_grad = functools.partial(model.zero_grad, set_to_none=False)
        return model, rows

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """None: the run directory describes the run."""

    def get_batch_samples(self, *args: Any) -> Any:
        """Count the real tokens of the next step, without waiting for the device."""
        began = time.monotonic()
        batches, items = super().get_batch_samples(*args)  # type: ignore[misc]
        self.meter.waited(time.monotonic() - began)
        self.meter.tokens += sum(self.count_tokens(batch) for batch in batches)
        self.meter.rows += sum(self.count_rows(batch) for batch in batches)
        return batches, items

    def count_steps(self) -> StepCount | None:
        """The steps that ``train`` is going to take; None where nobody knows the number of rows."""
        if not has_length(self.train_dataset):
            return None
        args = self.args
        return count_steps(
            len(self.train_dataset),
            args.train_batch_size,
            args.world_size,
            args.gradient_accumulation_steps,
            args.num_train_epochs,
            args.max_steps,
        )

    def count_rows(self, batch: dict[str, Any]) -> torch.Tensor | int:
        """Rows of a batch; where several share one, each begins with position 0."""
        if "position_ids" in batch:
            return (batch["position_ids"] == 0).sum()
        return len(next(iter(batch.values())))

    def count_tokens(self, batch: dict[str, Any]) -> torch.Tensor | int:
        """Tokens of a batch that are no padding. Stages whose batches have other keys say it in their own way."""
        return batch["attention_mask"].sum()

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
            counts = (self.meter.rows, self.meter.tokens)
            mine = torch.stack([torch.as_tensor(count, device=self.args.device) for count in counts])
            rows, tokens = self.accelerator.reduce(mine, "sum").tolist()
            logs |= self.meter.take(rows, tokens)
            logs |= self._mfu(logs["tokens_per_second"], tokens / max(rows, 1))
        super().log(logs, start_time)  # type: ignore[misc]

    def _mfu(self, tokens_per_second: float, row_length: float) -> dict[str, float]:
        """Where it is known, see ``trainers.runtime.compute``."""
        if not (self.one_pass and self.args.device.type == "cuda"):
            return {}
        peak = peak_flops(torch.cuda.get_device_name())
        each = flops_per_token(self.accelerator.unwrap_model(self.model), row_length)
        return {"mfu": tokens_per_second * each / (peak * self.args.world_size)} if peak and each else {}

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        rows = self.train_dataset if train_dataset is None else train_dataset
        usual = super()._get_train_sampler(train_dataset)  # type: ignore[misc]
        # Streams have no order to choose, and stages on generated answers repeat their prompts.
        if not isinstance(usual, RandomSampler):
            return usual
        # A whole step of them: however a step is split, a resumed run has the same order.
        step = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return LongestFirst(row_lengths(rows), step, self.args.data_seed)

    def _run_epoch(self, *, epoch: int, train_dataloader: Any, **kwargs: Any) -> None:
        # Later, behind the batches that a resumed run skips, the word does not reach the sampler of several processes.
        if hasattr(train_dataloader, "set_epoch"):
            train_dataloader.set_epoch(epoch)
        super()._run_epoch(epoch=epoch, train_dataloader=train_dataloader, **kwargs)  # type: ignore[misc]

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        super()._save(output_dir, state_dict)  # type: ignore[misc]
        # A pickle with this run's absolute path in it; run.yaml says the same.
        (Path(output_dir or self.args.output_dir) / TRAINING_ARGS_NAME).unlink(missing_ok=True)
        save_beside_adapter(Path(output_dir or self.args.output_dir), self.accelerator.unwrap_model(self.model))

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
                checkpoints.rotate(self.run_dir, self.keep, self.best.step)
        except (OSError, RuntimeError, SafetensorError) as e:
            raise self._not_saved(folder, e) from e

    def load_best(self) -> bool:
        """Go back to the weights of the best checkpoint, and say whether that was done."""
        if self.best.step is None or self.best.step == self.state.global_step:
            return False
        folder = self.run_dir / checkpoints.FOLDER / f"checkpoint-{self.best.step}"
        # The first process wrote it; others may not see it yet, and loading it takes all of them.
        [there] = broadcast_object_list([(folder / checkpoints.MARK).is_file()])
        if not there:
            log.warning("%s, the best one, is gone: the last weights are the result", folder.name)
            return False
        log.info("the result is %s, where %s was best", folder.name, self.best.metric)
        self.state.best_model_checkpoint = str(folder)
        self._load_best_model()
        # The state is saved with later checkpoints, and a run directory may be moved.
        self.state.best_model_checkpoint = None
        return True

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
