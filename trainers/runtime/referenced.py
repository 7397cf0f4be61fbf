"""What dpo and kto have in common: a trainer that measures its model against the start of the run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import is_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer

from trainers.config import RunConfig
from trainers.errors import InputProblem
from trainers.runtime.trainer import RunTrainer

COPY = "ref"
"""TRL's name for the frozen copy of an adapter."""


class Referenced(RunTrainer):
    """In front of TRL's DPOTrainer or KTOTrainer, over rows that are tokenised already.

    The reference is what this run started from: a frozen copy of the adapter that goes on training, the base
    model behind a new adapter, or a second model (``ref_model``) where all weights train. It has no dropout,
    and the model none but that of its adapter, which was asked for.
    """

    def __init__(self, *, keep_copy: bool, **kwargs: Any) -> None:
        self._keep_copy = keep_copy
        self._settled = False
        super().__init__(**kwargs)
        self.settle()

    def settle(self) -> None:
        """Make the reference the start, exactly. Once, before anything is computed or shared out over processes."""
        if self._settled:
            return
        self._settled = True
        silence(self.model)
        if not is_peft_model(self.model) or COPY not in self.model.peft_config:
            return
        if not self._keep_copy:
            # Behind a new adapter the base model is the start, and adapters off are cheaper than a copy.
            self.model.delete_adapter(COPY)
            return
        for name, weight in self.model.named_parameters():
            parts = name.split(".")
            if COPY in parts:
                # TRL leaves adapters of embeddings out, and may have changed the format of the original since.
                original = ".".join("default" if part == COPY else part for part in parts)
                weight.data = self.model.get_parameter(original).data.clone()
                weight.requires_grad_(False)

    def _prepare_dataset(self, dataset: Any, *args: Any) -> Any:
        return dataset

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """TRL counts tokens anew in every attempt: left out."""
        for metrics in self._metrics.values():
            metrics.pop("num_tokens", None)
        super().log(logs, start_time)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        super()._save(output_dir, state_dict)
        # The reference is made again from where the run starts; it is no result.
        shutil.rmtree(Path(output_dir or self.args.output_dir) / COPY, ignore_errors=True)


def silence(model: torch.nn.Module) -> None:
    """Take all dropout out of a model but that of the adapter that learns."""
    for name, module in list(model.named_modules()):
        if name.endswith("lora_dropout") and COPY in module:
            # One of probability 0 would still draw numbers, and change those of the adapter that learns.
            module[COPY] = torch.nn.Identity()
        if isinstance(module, torch.nn.Dropout) and not name.endswith("lora_dropout.default"):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0


def keeps_copy(config: RunConfig) -> bool:
    """Whether the start of this run is an adapter and not the base model. A new DoRA adapter is the base model
    but for rounding."""
    model = config.model
    return model.adapter == "lora" and (bool(model.adapter_name_or_path) or model.lora.use_dora)


def check_head(model: Any) -> None:
    """Raise InputProblem when an adapter sits on the output head, which TRL's losses go around."""
    if isinstance(model.get_output_embeddings(), BaseTunerLayer):
        raise InputProblem(
            "this stage computes the loss from the output head's own weights, so an adapter on it would not learn",
            hint="take lm_head out of model.lora.target_modules, or put it into model.lora.modules_to_save",
        )
