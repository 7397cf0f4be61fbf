"""LoRA adapters: a new one, or one that goes on training."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from trainers.config import Model, RunConfig
from trainers.errors import InputProblem
from trainers.model.base import Kind
from trainers.model.paths import adapter_folder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

_TASKS = {"causal": "CAUSAL_LM", "masked": None, "classifier": "SEQ_CLS"}
"""PEFT's word for each kind of model. SEQ_CLS also trains and saves the head; for masked tokens it has none."""


def new_adapter(model: PreTrainedModel, config: RunConfig, kind: Kind) -> Any:
    """A fresh adapter on the model, drawn from the seed of the run. Raises InputProblem."""
    from peft import LoraConfig, get_peft_model
    from transformers import set_seed

    lora = config.model.lora
    targets = lora.target_modules
    set_seed(config.optim.seed)
    whole = _whole_modules(model, lora.modules_to_save)
    try:
        return get_peft_model(
            model,
            # Always a new one: PEFT writes the module names that it found into it.
            LoraConfig(
                task_type=_TASKS[kind],
                r=lora.r,
                lora_alpha=lora.lora_alpha,
                lora_dropout=lora.lora_dropout,
                target_modules=targets[0] if targets == ["all-linear"] else list(targets),
                modules_to_save=list(lora.modules_to_save) or None,
                ensure_weight_tying=bool(getattr(model.config, "tie_word_embeddings", False) and whole & _ends(model)),
                use_rslora=lora.use_rslora,
                use_dora=lora.use_dora,
            ),
            # ZeRO-3 gathers weights of one format alone; DeepSpeed has the fp32 copy.
            autocast_adapter_dtype=config.parallel.strategy != "zero3",
        )
    except ValueError as e:
        raise InputProblem(
            f"LoRA: {str(e).splitlines()[0]}",
            hint="check model.lora.target_modules and model.lora.modules_to_save",
        ) from e


def _whole_modules(model: Any, names: list[str]) -> set[Any]:
    """The modules that are trained whole. Raises InputProblem for a name that PEFT would pass over in silence."""
    found = set()
    for wanted in names:
        modules = {module for name, module in model.named_modules() if f".{name}".endswith(f".{wanted}")}
        if not modules:
            raise InputProblem(
                f"model.lora.modules_to_save: the model has no module {wanted}",
                hint="usual names are embed_tokens and lm_head",
            )
        found |= modules
    return found


def _ends(model: Any) -> set[Any]:
    """The embedding and the head, which are one weight where they are tied, and have to stay so."""
    return {model.get_input_embeddings(), model.get_output_embeddings()}


def load_adapter(model: PreTrainedModel, wanted: Model, *, trainable: bool) -> Any:
    """The adapter of ``adapter_name_or_path`` on its base, all its weights proven to be there. Raises InputProblem."""
    from peft import PeftModel

    folder = adapter_folder(wanted.adapter_name_or_path or "")
    try:
        adapted = PeftModel.from_pretrained(model, str(folder), is_trainable=trainable)
    except (OSError, ValueError, RuntimeError) as e:
        reason = next((line.strip() for line in str(e).splitlines() if "size mismatch" in line), str(e).splitlines()[0])
        raise InputProblem(
            f"adapter {folder} does not fit {model.config.name_or_path}: {reason}",
            hint="continue an adapter on the base model that it was trained on",
        ) from e
    _check(adapted, folder)
    return adapted


def _check(model: Any, folder: Path) -> None:
    # PEFT only warns when weights of the file find no place, and then trains from scratch.
    from peft import get_peft_model_state_dict, load_peft_weights

    here, there = get_peft_model_state_dict(model), load_peft_weights(str(folder), device="cpu")
    odd = set(here) ^ set(there)
    for name in set(here) & set(there):
        if not torch.equal(here[name].cpu(), there[name].to(here[name].dtype)):
            odd.add(name)
    if odd:
        raise InputProblem(
            f"adapter {folder}: {len(odd)} of {len(there)} weights did not arrive in the model, such as {min(odd)}",
            hint="continue an adapter on the base model that it was trained on",
        )
    log.info("adapter %s: all %d weights are in place", folder, len(there))
