"""The order of stages: what trains on preferences and rewards starts from a model that has learnt to answer.

A model counts as such when one of these holds, looked at from its adapter to its base model:

- a run of ours with stage sft, or with one after it, made it, or a run that started from such a one did;
- it is a directory with a chat template that ends a turn with the token at which the model stops (the base models of
  some families have a template too, but stop elsewhere);
- its name says so (Instruct, Chat, -it ...), or is of a family that only marks its base models.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clusterctl import yaml_text
from clusterctl.errors import UsageProblem
from clusterctl.paths import is_dir, is_file, text_of, user_path
from trainers.config import RunConfig

if TYPE_CHECKING:
    from clusterctl.pipeline import Start

RLHF = frozenset({"dpo", "kto", "grpo", "rloo", "ppo"})
_ANSWERS = RLHF | {"sft"}

_BASE_WORDS = {"base", "pt", "pretrain", "pretrained"}
_CHAT_WORDS = {"instruct", "chat", "it", "sft", "dpo", "rlhf", "grpo", "assistant", "thinking", "distill", "r1"}
_CHAT_FAMILIES = ("qwen3", "qwq", "smollm3", "gpt-oss", "phi-3", "phi-4", "chatglm", "glm-4", "zephyr", "vicuna")
"""Their plain name is the chat model; a base model, where there is one, says ``base``."""


def check(config: RunConfig, start: Start | None) -> None:
    """Refuse a stage of RLHF on a model that has not learnt to answer.

    Raises:
        UsageProblem: nothing says that it has.
    """
    if config.stage not in RLHF or _line_answers(start):
        return
    first = start
    while first and first.start:
        first = first.start
    model = (first.before if first else config).model
    if _answers(model.model_dump(mode="json")):
        return
    raise UsageProblem(
        f"stage {config.stage} starts from {model.adapter_name_or_path or model.model_name_or_path}, and nothing says"
        " that it has learnt to answer: no run of stage sft made it, and it is no instruct or chat model",
        hint="train sft before it: put both into a pipeline, or name the run in model.adapter_name_or_path;"
        " --force-start goes on all the same",
    )


def _line_answers(start: Start | None) -> bool:
    """Whether one of the members that come before in the line teaches to answer."""
    return start is not None and (start.before.stage in _ANSWERS or _line_answers(start.start))


def _answers(model: Mapping[str, Any]) -> bool:
    """The rule above, for the section ``model`` of a run."""
    adapter, name = model.get("adapter_name_or_path"), str(model.get("model_name_or_path") or "")
    if adapter and (made := _made_by(user_path(str(adapter)))) and _run_answers(made):
        return True
    folder = user_path(name)
    if not is_dir(folder):
        return _says_chat(name)
    made = _made_by(folder)
    return _run_answers(made) if made else _says_chat(name) or _stops_after_a_turn(folder)


def _run_answers(made: Mapping[str, Any]) -> bool:
    """Whether the run with this ``run.yaml`` leaves a model that answers."""
    model = made.get("model")
    return made.get("stage") in _ANSWERS or (isinstance(model, Mapping) and _answers(model))


def _made_by(folder: Path) -> Mapping[str, Any] | None:
    """``run.yaml`` of the run that a final_model or a checkpoint belongs to."""
    for candidate in (folder, folder.parent, folder.parent.parent):
        if is_file(candidate / "run.yaml"):
            return yaml_text.read(candidate / "run.yaml").values
    return None


def _says_chat(name: str) -> bool:
    plain = name.rstrip("/").rsplit("/", 1)[-1].lower()
    words = set(re.split(r"[-_.]", plain))
    if words & _BASE_WORDS:
        return False
    return bool(words & _CHAT_WORDS) or plain.startswith(_CHAT_FAMILIES)


def _stops_after_a_turn(folder: Path) -> bool:
    """Whether the chat template names the tokenizer's end token."""
    if not is_file(folder / "tokenizer_config.json"):
        return False
    try:
        settings = json.loads(text_of(folder / "tokenizer_config.json"))
    except ValueError:
        return False
    written = is_file(folder / "chat_template.jinja")
    template = text_of(folder / "chat_template.jinja") if written else settings.get("chat_template")
    end = settings.get("eos_token")
    end = end.get("content") if isinstance(end, dict) else end
    return isinstance(template, str) and ("eos_token" in template or bool(end and end in template))
