"""The chat template: from a conversation to text, with the spans that the assistant said.

Trained is what the model will have to write itself: each assistant turn with the mark that ends it, because
a model that never learns the mark never stops.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

from trainers.data.formats import Conversation
from trainers.data.rows import BadRow
from trainers.errors import InputProblem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Span = tuple[int, int]

_PROBE = "clusterctl"


class ChatTemplate:
    """A tokenizer's chat template, checked once for what training needs of it."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        template = tokenizer.chat_template
        if not isinstance(template, str):
            raise InputProblem(
                "the tokenizer has no chat template",
                hint="use an instruct model, or name a Jinja file in model.chat_template",
            )
        self._template = template
        self._words = tokenizer.special_tokens_map
        self._marked = re.search(r"\{%-?\s*generation\s*-?%\}", template) is not None
        self.end = self._end_of_turn(tokenizer)

    def text(self, conversation: Conversation, *, ask: bool = False) -> str:
        """The conversation as text; with ``ask`` ending where the assistant is to begin."""
        try:
            rendered, _ = render_jinja_template(
                [conversation], chat_template=self._template, add_generation_prompt=ask, **self._words
            )
        except TemplateError as e:
            raise BadRow(f"the chat template refuses it: {e}") from None
        return str(rendered[0])

    def spans(self, conversation: Conversation) -> tuple[str, list[Span]]:
        """The whole text and the character spans to train on. Raises BadRow."""
        if any(self.end in message["content"] for message in conversation):
            raise BadRow(f"contains the end-of-turn mark {self.end!r}")
        if self._marked:
            return self._spans_by_marks(conversation)
        whole, spans = self.text(conversation), []
        for position, message in enumerate(conversation):
            if message["role"] != "assistant":
                continue
            before = self.text(conversation[:position], ask=True)
            if not whole.startswith(before):
                raise InputProblem(
                    "the chat template writes a conversation differently once it goes on, so the assistant's "
                    "words cannot be told from the rest",
                    hint="name a template with {% generation %} marks in model.chat_template",
                )
            spans.append((len(before), whole.index(self.end, len(before)) + len(self.end)))
        return whole, spans

    def _spans_by_marks(self, conversation: Conversation) -> tuple[str, list[Span]]:
        try:
            rendered, marked = render_jinja_template(
                [conversation], chat_template=self._template, return_assistant_tokens_mask=True, **self._words
            )
        except TemplateError as e:
            raise BadRow(f"the chat template refuses it: {e}") from None
        whole = str(rendered[0])
        # Some templates close the mark before the token that ends the turn.
        return whole, [(start, stop + len(self.end) * whole.startswith(self.end, stop)) for start, stop in marked[0]]

    def _end_of_turn(self, tokenizer: PreTrainedTokenizerBase) -> str:
        """What the template writes behind an answer, up to and with the first special token."""
        answered = [{"role": "user", "content": _PROBE}, {"role": "assistant", "content": _PROBE}]
        try:
            tail = self.text(answered).rpartition(_PROBE)[2]
        except BadRow as e:
            raise InputProblem(f"the chat template does not work: {e}", hint="check model.chat_template") from None
        ends = [
            tail.index(token) + len(token)
            for token in tokenizer.get_added_vocab() | dict.fromkeys(tokenizer.all_special_tokens)
            if token in tail
        ]
        if not ends:
            raise InputProblem(
                f"the chat template puts no special token behind an answer (only {tail!r}): the model would never "
                "learn to stop",
                hint="end the assistant's turns with eos_token in the file that model.chat_template names",
            )
        return tail[: min(ends)]


def use_template_file(tokenizer: PreTrainedTokenizerBase, path: str) -> None:
    """Replace the tokenizer's template by a Jinja file; it is saved with the model. Raises InputProblem."""
    try:
        tokenizer.chat_template = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise InputProblem(f"model.chat_template: {path} cannot be read: {e}", hint="name a Jinja file") from None
