"""What learns: the parameters of a LoRA adapter as PEFT makes it, or those of the model that a run does not freeze.

LoRA: https://arxiv.org/abs/2106.09685, DoRA: https://arxiv.org/abs/2402.09353. Names, shapes and the choice of modules
are PEFT's (0.21) as trainers/model/{adapter,freeze}.py use it; the tests compare both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from clusterctl.errors import UsageProblem
from clusterctl.models.experts import lora_on_experts, old_names
from clusterctl.models.shape import Parameter, Shape

if TYPE_CHECKING:
    from trainers.config.sections import Lora, Model

_SCORES = ("classifier", "score")
"""Heads that PEFT trains whole beside the adapter of a classifier."""


def trainable(
    shape: Shape, model: Model, stage: str, stored: Sequence[Parameter] | None = None
) -> tuple[Parameter, ...]:
    """The parameters that learn, under the names that the run gives them.

    Args:
        shape: the model, with the head of the stage.
        model: section ``model`` of the run.
        stage: stage1 trains nothing but the layers without positions.
        stored: the weights of the adapter that the run goes on training, see ``find.stored_adapter``.

    Raises:
        UsageProblem: names or patterns that this model does not have, or nothing that is left to learn.
    """
    if stored is not None:
        learning = tuple(stored)
    elif model.adapter == "lora":
        learning = lora_parameters(shape, model.lora)
    else:
        learning = shape.parameters
    if stage == "stage1":
        prefixes = tuple(f"{shape.layers}.{number}." for number in model.rope_free_layers)
        learning = tuple(one for one in learning if one.name.startswith(prefixes))
    if not shape.exact:
        # Names are not known: all of it, as a bound.
        return learning
    if model.freeze:
        frozen = _matching(shape, learning, model.freeze, "model.freeze")
        learning = tuple(one for one in learning if one.name not in frozen)
    if model.train_only:
        kept = _matching(shape, learning, model.train_only, "model.train_only")
        learning = tuple(one for one in learning if one.name in kept)
    if not learning:
        raise UsageProblem("no parameter is left that learns", hint="check model.freeze and model.train_only")
    return learning


def lora_parameters(shape: Shape, lora: Lora) -> tuple[Parameter, ...]:
    """The parameters of a new adapter, with the modules that are trained whole.

    Raises:
        UsageProblem: no module of the model has one of the names.
    """
    if shape.exact and lora.modules_to_save:
        _check_saved(shape, lora.modules_to_save)
    saved = list(lora.modules_to_save) + (list(_SCORES) if shape.head == "classifier" else [])
    modules = _modules(shape)
    found = [name for name, weight in modules.items() if _is_target(shape, name, weight, lora.target_modules, saved)]
    experts = tuple(lora_on_experts(shape, lora))
    if not found and not experts:
        raise UsageProblem(
            f"model.lora.target_modules: the model has no module {', '.join(lora.target_modules)}",
            hint=f"usual names are {', '.join(sorted({name.rpartition('.')[2] for name in modules})[:8])}",
        )
    twice = next((name for name in found if name.endswith(tuple(saved))), None) if saved else None
    if twice:
        raise UsageProblem(
            f"model.lora: the module {twice} would be adapted and trained whole",
            hint="name other model.lora.target_modules",
        )
    return (*(part for name in found for part in _factors(modules[name], lora)), *experts, *_whole(shape, saved))


def _check_saved(shape: Shape, names: Sequence[str]) -> None:
    """Raise UsageProblem for a module that the model does not have, as trainers/model/adapter.py does."""
    parts = [one.name.split(".") for one in shape.parameters]
    modules = {".".join(part[:end]) for part in parts for end in range(1, len(part))} | {shape.output_layer}
    for wanted in names:
        if not any(f".{module}".endswith(f".{wanted}") for module in modules):
            raise UsageProblem(
                f"model.lora.modules_to_save: the model has no module {wanted}",
                hint="usual names are embed_tokens and lm_head",
            )


def _modules(shape: Shape) -> dict[str, Parameter]:
    """The modules that PEFT can adapt: name of the module to its weight. A tied output layer is a module too."""
    found = {
        one.name.removesuffix(".weight"): one
        for one in shape.parameters
        if len(one.shape) == 2 and (one.linear or one.part == "embedding")
    }
    if shape.tie_word_embeddings:
        weight = Parameter(f"{shape.output_layer}.weight", shape.embedding.shape, "head", linear=True)
        found[shape.output_layer] = weight
    return found


def _is_target(shape: Shape, module: str, weight: Parameter, targets: list[str], saved: list[str]) -> bool:
    """As PEFT's ``check_target_module_exists`` and ``_maybe_include_all_linear_layers`` decide it."""
    if any(re.match(rf"(^|.*\.){name}($|\..*)", module) for name in saved):
        return False
    if not shape.exact:
        return weight.linear and module != shape.output_layer
    if module.rpartition(".")[2] in old_names(shape):
        return False
    if targets == ["all-linear"]:
        return weight.linear and module != shape.output_layer
    return any(module == target or module.endswith(f".{target}") for target in targets)


def _factors(weight: Parameter, lora: Lora) -> Iterator[Parameter]:
    module = f"base_model.model.{weight.name.removesuffix('.weight')}"
    out, into = reversed(weight.shape) if weight.transposed else weight.shape
    if weight.linear:
        yield Parameter(f"{module}.lora_A.default.weight", (lora.r, into), weight.part, linear=True)
        yield Parameter(f"{module}.lora_B.default.weight", (out, lora.r), weight.part, linear=True)
    else:
        # An embedding: a table of its rows, and the way back to the width of the model.
        yield Parameter(f"{module}.lora_embedding_A.default", (lora.r, out), weight.part)
        yield Parameter(f"{module}.lora_embedding_B.default", (into, lora.r), weight.part)
    if lora.use_dora:
        yield Parameter(f"{module}.lora_magnitude_vector.default.weight", (out if weight.linear else into,), "other")


def _whole(shape: Shape, saved: Sequence[str]) -> Iterator[Parameter]:
    """The modules that learn whole. Where input and output are one weight they stay one."""
    if not saved:
        return
    parameters = list(shape.parameters)
    if shape.tie_word_embeddings and shape.output_layer == "lm_head" and "lm_head".endswith(tuple(saved)):
        # The embedding learns in its place.
        saved = [*saved, shape.embedding.name.removesuffix(".weight")]
    elif shape.tie_word_embeddings:
        # A head that PEFT does not know by its name is copied as it is, and is no longer the embedding.
        parameters += _tied(shape, saved)
    for one in parameters:
        owner = _owner(one.name, saved)
        if owner:
            rest = one.name.removeprefix(f"{owner}.")
            yield replace(one, name=f"base_model.model.{owner}.modules_to_save.default.{rest}")


def _tied(shape: Shape, saved: Sequence[str]) -> Iterator[Parameter]:
    """Weight and bias of the output layer that are listed under another name."""
    yield Parameter(f"{shape.output_layer}.weight", shape.embedding.shape, "head", linear=True)
    for one in shape.parameters:
        if one.part == "head" and one.shape == (shape.vocab_size,) and not _owner(one.name, saved):
            yield replace(one, name=f"{shape.output_layer}.bias")


def _owner(parameter: str, names: Sequence[str]) -> str:
    """The outermost module above a parameter whose name ends like one of these, as PEFT looks for them; or nothing."""
    parts = parameter.split(".")
    modules = (".".join(parts[:end]) for end in range(1, len(parts)))
    return next((module for module in modules if module.endswith(tuple(names))), "")


def _matching(shape: Shape, learning: Sequence[Parameter], patterns: list[str], field: str) -> set[str]:
    """Names of the learning parameters that match any pattern, as trainers/model/freeze.py decides it."""
    names = {one.name: _names(shape, one) for one in learning}
    found = set()
    for pattern in patterns:
        matches = {name for name, all_names in names.items() if any(fnmatchcase(one, pattern) for one in all_names)}
        if not matches:
            raise UsageProblem(
                f"{field}: no parameter that learns is called {pattern}",
                hint=f"names look like {', '.join(names[name][0] for name in list(names)[:3])}",
            )
        found |= matches
    return found


def _names(shape: Shape, one: Parameter) -> list[str]:
    """What a parameter is called in a run: without PEFT's wrapping, and by both of its names where it is tied."""
    found = [one.name.removeprefix("base_model.model.").replace(".default.", ".")]
    if shape.tie_word_embeddings and one == shape.embedding:
        found.append(f"{shape.output_layer}.weight")
    if shape.tie_word_embeddings and one.part == "head" and one.shape == (shape.vocab_size,):
        found.append(f"{shape.output_layer}.bias")
    return found
