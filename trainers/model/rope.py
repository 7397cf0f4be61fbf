"""Rotary positions that differ from the model's own: layers without any, another base, stretched ones.

What a run asks for is written into the model's config, so that it is saved with the weights, and read from
there at every load. Beside an adapter, which has no config, it is kept in ``rope.json``.
"""

from __future__ import annotations

import inspect
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from trainers.config import Model
from trainers.config.sections import RopeScaling
from trainers.errors import InputProblem
from trainers.model.fit import rope_free_layers
from trainers.model.paths import adapter_folder
from trainers.runtime.files import read_json, write_json

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

log = logging.getLogger(__name__)

KEY = "rope_free_layers"
"""Its entry in config.json. SmolLM3's ``no_rope_layers`` is something else: there 1 means that a layer has RoPE."""
FILE = "rope.json"


def prepare(wanted: Model, base: PretrainedConfig, max_length: int | None = None) -> dict[str, Any]:
    """Write the positions that its adapter has and the run asks for into a model's config, before it is built.

    Returns what was changed, to be kept beside an adapter; empty where the config said all of it before.
    ``max_length``: tokens of the longest row, to say when stretched positions are never reached; None: say nothing.
    Raises InputProblem: the model cannot do it, or was trained with other layers without positions.
    """
    before = _entries(base)
    if wanted.adapter_name_or_path:
        _read_beside_adapter(adapter_folder(wanted.adapter_name_or_path), base)
    _override(wanted, base, max_length)
    after = _entries(base)
    return after if after != before else {}


def _entries(base: PretrainedConfig) -> dict[str, Any]:
    found = {name: getattr(base, name, None) for name in (KEY, "rope_parameters", "max_position_embeddings")}
    return {name: value for name, value in found.items() if value}


def _override(wanted: Model, base: PretrainedConfig, max_length: int | None) -> None:
    layers = rope_free_layers(wanted, base.to_dict())
    if layers:
        setattr(base, KEY, layers)
    if not (wanted.rope_theta or wanted.rope_scaling):
        return
    rope = getattr(base, "rope_parameters", None)
    if not rope or "rope_theta" not in rope:
        raise InputProblem(
            f"{base.model_type} has no rotary positions, or several kinds of them",
            hint="drop model.rope_theta and model.rope_scaling",
        )
    rope = dict(rope)
    if wanted.rope_theta:
        log.info("rope_theta %g, the model's own is %g", wanted.rope_theta, rope["rope_theta"])
        rope["rope_theta"] = wanted.rope_theta
    if wanted.rope_scaling:
        rope = _stretch(wanted.rope_scaling, base, rope, max_length)
    base.rope_parameters = rope


def _stretch(
    scaling: RopeScaling, base: PretrainedConfig, rope: dict[str, Any], max_length: int | None
) -> dict[str, Any]:
    """The rotary parameters with the scaling of the run. Sets the new length of the model."""
    kept = (rope.get("rope_type"), rope.get("factor")) == (scaling.rope_type, scaling.factor)
    # A model that was stretched before is longer than it was.
    shorter = scaling.factor if kept and scaling.rope_type == "linear" else 1
    own = rope.get("original_max_position_embeddings", base.max_position_embeddings / shorter)
    own = int(scaling.original_max_position_embeddings or own)
    if max_length is not None and max_length <= own:
        log.warning(
            "model.rope_scaling has no use: data.max_length %d is within the %d positions of the model", max_length, own
        )
    stretched = {"rope_type": scaling.rope_type, "factor": scaling.factor, "rope_theta": rope["rope_theta"]}
    if kept:
        # With what else belongs to it, such as yarn's beta_fast.
        stretched = rope | stretched
    if scaling.rope_type == "yarn":
        stretched["original_max_position_embeddings"] = own
    # The dynamic kind takes max_position_embeddings for the old length and grows by itself.
    if scaling.rope_type != "dynamic":
        base.max_position_embeddings = int(own * scaling.factor)
    return stretched


def rope_free(model: Any) -> list[Any]:
    """The layers that the model's config names as seeing no positions. Raises InputProblem where there are none."""
    numbers = getattr(model.config, KEY, None) or []
    layers = getattr(model.get_decoder() or model.base_model, "layers", None)
    if numbers and layers is None:
        raise InputProblem(f"{model.config.model_type} has no decoder layers", hint="drop model.rope_free_layers")
    return [layers[number] for number in numbers]


def apply(model: PreTrainedModel) -> None:
    """Take the positions from the layers that the model's config names. To be called after every load.

    Raises InputProblem: these layers have no attention that positions reach in the usual way.
    """
    for layer in rope_free(model):
        attention = getattr(layer, "self_attn", None)
        if attention is None or "position_embeddings" not in inspect.signature(attention.forward).parameters:
            raise InputProblem(
                f"model.rope_free_layers: {model.config.model_type} has other layers than attention with positions",
                hint="choose other layers, or another model",
            )
        attention.register_forward_pre_hook(_without_positions, with_kwargs=True)


def _without_positions(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    cos, sin = kwargs["position_embeddings"]
    # A rotation by the angle 0, whatever the position.
    return args, {**kwargs, "position_embeddings": (torch.ones_like(cos), torch.zeros_like(sin))}


def save_beside_adapter(folder: Path, model: Any) -> None:
    """Write what the adapter's base has to be loaded with; nothing where that is what its own config says."""
    changed = getattr(model, "rope_changes", None)
    if changed and hasattr(model, "peft_config"):
        write_json(folder / FILE, changed)


def _read_beside_adapter(folder: Path, base: PretrainedConfig) -> None:
    """Give the base of an adapter the positions that it was trained with. Raises InputProblem for another base."""
    path = folder / FILE
    if not path.is_file():
        return
    trained = {name: value for name, value in read_json(path).items() if name != "schema"}
    own = getattr(base, KEY, None)
    if own not in (None, trained.get(KEY)):
        raise InputProblem(
            f"adapter {folder}: trained with RoPE-free layers {trained.get(KEY, [])}, and its base has {own}",
            hint="continue an adapter on the base model that it was trained on",
        )
    for name, value in trained.items():
        setattr(base, name, value)
