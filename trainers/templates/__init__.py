"""Shipped chat templates: Jinja files with ``{% generation %}`` marks around what the assistant says.

Each writes a conversation as the model's makers published it. Light: a login node looks names up with it.
"""

from __future__ import annotations

import json
from difflib import get_close_matches
from pathlib import Path

from trainers.errors import InputProblem

SHIPPED: dict[str, tuple[str, ...]] = {
    "qwen2_chatml": ("<|im_start|>", "<|im_end|>"),
    "llama3_instruct": ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "chatglm3": ("[gMASK]", "sop", "<|system|>", "<|user|>", "<|assistant|>", "</s>"),
    "baichuan2_chat": ("<reserved_106>", "<reserved_107>", "</s>"),
    "deepseek_chat": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
}
"""The special tokens that each needs. They stand in the templates as text: a tokenizer without them would cut
them into pieces that the model has never seen."""


def check_tokenizer(folder: Path, name: str | None) -> None:
    """What the files of a tokenizer tell before it is loaded. ``name`` is ``model.chat_template``.

    Raises InputProblem: it has no chat template and none is named, or it lacks tokens that the shipped one needs.
    """
    settings, tokens = folder / "tokenizer_config.json", folder / "tokenizer.json"
    if name is None and settings.is_file():
        own = any(folder.glob("chat_template*")) or (folder / "additional_chat_templates").is_dir()
        if not own and '"chat_template"' not in settings.read_text(encoding="utf-8"):
            raise InputProblem(f"the tokenizer in {folder} has no chat template", hint=NO_TEMPLATE)
    if name in SHIPPED and tokens.is_file():
        # Whether it keeps each whole is known only to the tokenizer; what is nowhere in it, it does not.
        text = tokens.read_text(encoding="utf-8")
        if missing := [token for token in SHIPPED[name] if json.dumps(token, ensure_ascii=False) not in text]:
            raise lacking(name, missing)


NO_TEMPLATE = "use an instruct model, or name a template or a Jinja file in model.chat_template"


def lacking(name: str, tokens: list[str]) -> InputProblem:
    """What to say of a tokenizer without the tokens of a shipped template."""
    return InputProblem(
        f"model.chat_template {name} needs {', '.join(tokens)}, which the tokenizer does not have as one token",
        hint="take the template of the model's own family, or leave model.chat_template empty for its own one",
    )


def find(name: str) -> Path:
    """The file of a shipped template, or the file that ``name`` is the path of. Raises InputProblem."""
    if name in SHIPPED:
        return Path(__file__).with_name(f"{name}.jinja")
    path = Path(name).expanduser()
    if path.is_file():
        return path
    near = get_close_matches(name, SHIPPED, n=1, cutoff=0.5)
    shipped = f"did you mean {near[0]}? " if near and "/" not in name else ""
    raise InputProblem(
        f"model.chat_template: there is no file {path.absolute()} and no shipped template of that name",
        hint=f"{shipped}shipped are {', '.join(SHIPPED)}",
    )
