"""Whether a model fits what a run wants of it, read from its config alone. Standard library only.

So that it is known on a login node, and in any case before the weights are loaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainers.config import Model, RunConfig
from trainers.errors import InputProblem
from trainers.model.paths import adapter_folder, is_adapter

_SHAPES = {
    "ForCausalLM": "causal",
    "LMHeadModel": "causal",
    "ForMaskedLM": "masked",
    "ForPreTraining": "masked",
    "ForSequenceClassification": "classifier",
}
"""Ends of the class names in ``architectures``. A bare ``...Model`` tells nothing."""

_SIZES = ("model_type", "hidden_size", "num_hidden_layers")
"""Entries of a config in which models differ whose adapters do not fit each other."""

_TABLES = {"bert": 0, "distilbert": 0, "electra": 0, "gpt2": 0, "opt": 0, "roberta": 2, "xlm-roberta": 2}
"""Models that look positions up in a table, beyond whose end they fail, and the entries of it that are no positions."""

_NAMES = {"causal": "a causal language model", "masked": "an encoder", "classifier": "a classifier"}


def read_config(model: Model) -> dict[str, Any]:
    """The model's config.json; empty for a name on the hub. Raises InputProblem for a file that is no JSON."""
    return _read_json(Path(model.model_name_or_path).expanduser() / "config.json")


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise InputProblem(f"{path}: cannot be read: {e}", hint="fetch or save the model again") from e
    return values if isinstance(values, dict) else {}


def check_fit(config: RunConfig, base: Mapping[str, Any]) -> None:
    """Raise InputProblem when the stage or the section ``model`` asks for what this model is not.

    Args:
        config: the run.
        base: entries of the model's config; what is absent is not checked.
    """
    found = shape(base)
    wanted = {"masked"} if config.stage == "mlm" else {"causal"}
    if config.stage == "reward":
        wanted = {"causal", "masked", "classifier"}
    if found and found not in wanted:
        named = (base.get("architectures") or [base.get("model_type")])[0]
        have = _NAMES.get(found, "a model with an encoder and a decoder")
        need = _NAMES["masked" if config.stage == "mlm" else "causal"]
        raise InputProblem(
            f"stage {config.stage} needs {need}, and {config.model.model_name_or_path} is {have} ({named})",
            hint="take another model, or stage mlm for an encoder" if found == "masked" else "take another model",
        )
    _check_length(config, base)
    if config.model.adapter_name_or_path and is_adapter(config.model.adapter_name_or_path):
        _check_adapter(config, adapter_folder(config.model.adapter_name_or_path), base)
    layers = rope_free_layers(config.model, base)
    if layers and uses_vllm(config):
        check_exportable(base | {"rope_free_layers": layers}, "vLLM")
    if base and config.stage in ("stage1", "stage2") and not layers:
        raise InputProblem(
            f"{config.stage} needs model.rope_free_layers: neither the run nor the model's config names any",
            hint="name the layers that lose their positions, counted from 0",
        )


def _check_length(config: RunConfig, base: Mapping[str, Any]) -> None:
    """Raise InputProblem where rows may be longer than the table of positions; other models: ``base.check_length``."""
    table = base.get("max_position_embeddings", base.get("n_positions"))
    kind = base.get("model_type")
    if kind not in _TABLES or not isinstance(table, int):
        return
    most = table - _TABLES[kind]
    answer = getattr(config.method, "max_completion_length", 0)
    if config.data.max_length + answer > most:
        raise InputProblem(
            f"data.max_length {config.data.max_length}{f' and answers of {answer}' if answer else ''}: "
            f"the model has {most} positions",
            hint=f"set data.max_length to {most - answer} or less" if most > answer else "take another model",
        )


def _check_adapter(config: RunConfig, folder: Path, base: Mapping[str, Any]) -> None:
    """Raise InputProblem for an adapter with another head than the stage has, or of a model of another size."""
    written = _read_json(folder / "adapter_config.json")
    rates = written.get("task_type") == "SEQ_CLS"
    if rates != (config.stage == "reward"):
        raise InputProblem(
            f"stage {config.stage} cannot go on with the adapter {folder}, which is of a model that "
            f"{'rates (stage reward)' if rates else 'writes'}",
            hint="drop model.adapter_name_or_path: a new adapter is trained",
        )
    trained_on = written.get("base_model_name_or_path")
    own = _read_json(Path(trained_on) / "config.json") if trained_on else {}
    differ = [key for key in _SIZES if key in own and key in base and own[key] != base[key]]
    if differ:
        of, on = (", ".join(f"{key} {values[key]}" for key in differ) for values in (own, base))
        raise InputProblem(
            f"the adapter {folder} was trained on {trained_on} ({of}), not on {config.model.model_name_or_path} ({on})",
            hint="continue an adapter on the base model that it was trained on",
        )


def shape(base: Mapping[str, Any]) -> str | None:
    """causal, masked, classifier or seq2seq; None when the config does not say."""
    if base.get("is_encoder_decoder"):
        return "seq2seq"
    named = str((base.get("architectures") or [""])[0])
    found = next((kind for end, kind in _SHAPES.items() if named.endswith(end)), None)
    # BertLMHeadModel without is_decoder looks at both sides all the same.
    if found == "causal" and named.startswith(("Bert", "Roberta")) and not base.get("is_decoder"):
        return "masked"
    return found


def rope_free_layers(wanted: Model, base: Mapping[str, Any]) -> list[int]:
    """The layers that see no positions: those of the model's config, else those that the run asks for.

    Raises InputProblem when both name layers and not the same, when there is no such layer, or when the model
    has layers without positions of its own.
    """
    own = sorted(set(base.get("rope_free_layers") or []))
    asked = sorted(set(wanted.rope_free_layers))
    if own and asked and own != asked:
        raise InputProblem(
            f"model.rope_free_layers {asked}: this model was trained with {own}",
            hint="drop model.rope_free_layers, it comes with the model, or start from the model without",
        )
    text = base.get("text_config") or base
    if asked and ("no_rope_layers" in text or "no_rope_layer_interval" in text):
        raise InputProblem(
            f"{base.get('model_type')} chooses layers without positions by itself (no_rope_layers)",
            hint="drop model.rope_free_layers",
        )
    count = text.get("num_hidden_layers")
    if count and any(layer >= count for layer in asked):
        raise InputProblem(
            f"model.rope_free_layers {asked}: the model has {count} layers, 0 to {count - 1}",
            hint="count layers from 0",
        )
    return own or asked


def uses_vllm(config: RunConfig) -> bool:
    """Whether another engine generates while this run trains."""
    return config.engine == "verl" or getattr(config.method, "use_vllm", False)


def check_exportable(base: Mapping[str, Any], program: str) -> None:
    """Raise InputProblem when the model has layers without positions, which no other program knows of."""
    if layers := base.get("rope_free_layers"):
        raise InputProblem(
            f"{program} would give positions to layers {layers}, which were trained without",
            hint="use transformers through clusterctl, or a model without model.rope_free_layers",
        )
