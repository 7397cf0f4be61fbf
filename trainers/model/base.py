"""Base weights from a directory or the hub, with the positions and the number format that belong to them."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import torch

from trainers.config import Model
from trainers.errors import InputProblem
from trainers.model import rope
from trainers.model.paths import model_source, near_name
from trainers.model.quantize import cure_cpu, quantization_config

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

log = logging.getLogger(__name__)

Kind = Literal["causal", "masked", "classifier"]


def load_config(model: Model) -> PretrainedConfig:
    """The model's own config. Raises InputProblem."""
    from transformers import AutoConfig

    base: PretrainedConfig = named(model, "config", AutoConfig.from_pretrained)
    return base


def load_base(
    model: Model, base: PretrainedConfig, kind: Kind, dtype: torch.dtype, *, new_head: bool = False
) -> PreTrainedModel:
    """The whole model, nothing adapted, on the CPU (quantised: where bitsandbytes puts it).

    Args:
        model: what to load.
        base: its config, with the positions that ``rope.prepare`` wrote into it.
        kind: which head: next token, masked token, or one score for a text.
        dtype: format of what is not quantised.
        new_head: whether a head that the files do not hold is drawn at random; the body has to be there.

    Raises:
        InputProblem: it cannot be found or loaded, or does not hold the weights of this kind of model.
    """
    import transformers

    classes = {
        "causal": transformers.AutoModelForCausalLM,
        "masked": transformers.AutoModelForMaskedLM,
        "classifier": transformers.AutoModelForSequenceClassification,
    }
    if kind == "classifier":
        base.num_labels = 1
    loaded, found = named(
        model,
        "model",
        classes[kind].from_pretrained,
        config=base,
        dtype=dtype,
        attn_implementation=model.attn_implementation,
        quantization_config=quantization_config(model, dtype),
        output_loading_info=True,
    )
    body = f"{loaded.base_model_prefix}."
    missing = sorted(name for name in found["missing_keys"] if not new_head or name.startswith(body))
    if missing:
        raise InputProblem(
            f"model {model.model_name_or_path} has no {missing[0]}"
            + (f" and {len(missing) - 1} more weights" if missing[1:] else "")
            + f", which {type(loaded).__name__} needs",
            hint="take a model of this kind; weights drawn at random would be trained instead",
        )
    cure_cpu(loaded)
    rope.apply(loaded)
    return loaded


def check_length(model: Any, max_length: int) -> None:
    """Raise InputProblem when rows may be longer than the model's table of positions, as encoders have one."""
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Embedding) and name.endswith(("position_embeddings", "embed_positions", "wpe")):
            # RoBERTa counts from behind its padding, OPT from its offset.
            first = getattr(module, "offset", 0 if module.padding_idx is None else module.padding_idx + 1)
            if max_length > module.num_embeddings - first:
                raise InputProblem(
                    f"data.max_length {max_length}: the model has {module.num_embeddings - first} positions",
                    hint=f"set data.max_length to {module.num_embeddings - first} or less",
                )


def named(model: Model, what: str, load: Callable[..., Any], **options: Any) -> Any:
    """``from_pretrained``, with its many ways to fail turned into one line."""
    try:
        return load(
            model_source(model),
            revision=model.revision or "main",
            trust_remote_code=model.trust_remote_code,
            **options,
        )
    except ImportError as e:
        raise InputProblem(
            f"{what} of {model.model_name_or_path} needs a package: {str(e).strip().splitlines()[0]}",
            hint="install it, or set model.attn_implementation to sdpa if that is what asks for it",
        ) from e
    except pickle.UnpicklingError as e:
        # PyTorch's own words advise to load it all the same.
        raise InputProblem(
            f"{what} of {model.model_name_or_path} holds a pickle with more than weights in it: it was not loaded",
            hint="take the safetensors of the model; such a file can run any program",
        ) from e
    except (OSError, ValueError, RuntimeError) as e:
        if isinstance(e, torch.OutOfMemoryError):
            raise
        reason = str(e).strip().splitlines()[0]
        raise InputProblem(
            f"{what} of {model.model_name_or_path} cannot be loaded: {reason}",
            hint=f"{near_name(model.model_name_or_path)}where the hub is not reached, set HF_ENDPOINT to a mirror, or "
            "fetch the model before with hf download and name its directory",
        ) from e
