"""Shipped chat templates: Jinja files with ``{% generation %}`` marks around what the assistant says.

Each writes a conversation as the model's makers published it. Light: a login node looks names up with it.
"""

from __future__ import annotations

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
