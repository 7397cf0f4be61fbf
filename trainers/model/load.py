"""Tokenizer and model of a run: base weights, number format, and the part that learns."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import torch

from trainers.config import Model, RunConfig
from trainers.data.template import use_template_file
from trainers.errors import InputProblem
from trainers.model import freeze, rope
from trainers.model.adapter import load_adapter, new_adapter
from trainers.model.base import Kind, check_length, load_base, load_config, named
from trainers.model.device import weight_dtype
from trainers.model.fit import check_fit
from trainers.model.paths import adapter_folder, is_adapter

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)


def load_tokenizer(config: Model) -> PreTrainedTokenizerBase:
    """The model's tokenizer, with the template that the run wants. Raises InputProblem."""
    from transformers import AutoTokenizer

    tokenizer = named(config, "tokenizer", AutoTokenizer.from_pretrained)
    if not tokenizer.is_fast:
        raise InputProblem(
            "the model has only a slow tokenizer, which cannot tell where in the text a token comes from",
            hint="use a model with a tokenizer.json",
        )
    rows = load_config(config).get_text_config().vocab_size
    if len(tokenizer) > rows:
        raise InputProblem(
            f"the tokenizer of {config.model_name_or_path} has {len(tokenizer)} tokens and its model {rows}",
            hint="take the tokenizer that belongs to the model, or extend the model's embedding",
        )
    if config.chat_template:
        use_template_file(tokenizer, config.chat_template)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(config: RunConfig, kind: Kind = "causal") -> Any:
    """The model of a run with the weights that learn in place: a new adapter, a continued one, or its own.

    Args:
        config: the run.
        kind: the head: ``causal`` for the next token, ``masked`` for an encoder, ``classifier`` for one score.

    Raises:
        InputProblem: it does not fit the stage (known before weights are read), or cannot be loaded.
    """
    wanted = config.model
    base = load_config(wanted)
    check_fit(config, base.to_dict())
    changes = rope.prepare(wanted, base, config.data.max_length)
    model: Any = load_base(wanted, base, kind, weight_dtype(config), new_head=kind == "classifier")
    model.rope_changes = changes
    check_length(model, config.data.max_length)
    if wanted.adapter_name_or_path:
        model = load_adapter(model, wanted, trainable=True)
    elif wanted.adapter == "lora":
        model = new_adapter(model, config, kind)
    if wanted.freeze:
        freeze.freeze(model, wanted.freeze)
    if wanted.train_only:
        freeze.train_only(model, wanted.train_only)
    return model


def load_frozen(wanted: Model, kind: Kind, dtype: torch.dtype) -> Any:
    """The model that a section ``model`` starts from, to be looked at and not trained. Raises InputProblem."""
    base = load_config(wanted)
    rope.prepare(wanted, base)
    # The adapter of a classifier brings its head.
    model: Any = load_base(wanted, base, kind, dtype, new_head=bool(wanted.adapter_name_or_path))
    if wanted.adapter_name_or_path:
        model = load_adapter(model, wanted, trainable=False)
    return model.eval().requires_grad_(False)


def load_trained(source: str, kind: Kind = "causal", dtype: torch.dtype = torch.float32) -> Any:
    """What a run left, or any other model, with the positions it was trained with; to be looked at and not trained.

    Args:
        source: a run directory's ``final_model``, the directory of a model or of an adapter, or a name on the hub.
        kind: its head.
        dtype: number format of the weights.
    """
    if not is_adapter(source):
        return load_frozen(Model(model_name_or_path=source, adapter="none"), kind, dtype)
    written = json.loads((adapter_folder(source) / "adapter_config.json").read_text(encoding="utf-8"))
    base = written["base_model_name_or_path"]
    return load_frozen(Model(model_name_or_path=base, adapter_name_or_path=source), kind, dtype)
