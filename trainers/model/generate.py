"""Answers in words, for people to look at: greedy, so that before and after can be compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from trainers.data.kinds import Conversation

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def answer(model: Any, tokenizer: PreTrainedTokenizerBase, asked: Conversation, end: str, max_new_tokens: int) -> str:
    """What the model says next in a conversation. ``end`` is the mark that ends a turn."""
    prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    stops = {_last_token(tokenizer, end), tokenizer.eos_token_id}
    model.eval()
    with torch.no_grad():
        said = model.generate(
            **prompt.to(model.device),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            eos_token_id=sorted(stops - {None}),
            pad_token_id=tokenizer.pad_token_id,
        )
    return str(tokenizer.decode(said[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)).strip()


def end_answers_with(model: Any, tokenizer: PreTrainedTokenizerBase, end: str) -> None:
    """Let generation stop at the template's end of a turn, here and wherever the saved model is loaded: base models
    name another token, and would talk on."""
    config = model.generation_config
    known = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    stops = dict.fromkeys([*known, _last_token(tokenizer, end)])
    config.eos_token_id = [one for one in stops if one is not None]


def _last_token(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
    return int(tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text)[-1]))
