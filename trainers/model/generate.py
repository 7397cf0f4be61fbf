"""Answers in words, for people to look at: greedy, so that before and after can be compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from trainers.data.formats import Conversation

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def answer(model: Any, tokenizer: PreTrainedTokenizerBase, asked: Conversation, end: str, max_new_tokens: int) -> str:
    """What the model says next in a conversation. ``end`` is the mark that ends a turn."""
    prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    stops = {tokenizer.convert_tokens_to_ids(tokenizer.tokenize(end)[-1]), tokenizer.eos_token_id}
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
