"""The chat template: from a conversation to text, with the spans that the assistant said.

Trained is what the model will have to write itself: each assistant turn with the mark that ends it, because
a model that never learns the mark never stops. Two probes run on every tokenizer before anything is trained: the
mark is among what is trained, and a conversation begins the same when it goes on.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

from jinja2 import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

from trainers.data.kinds import Conversation
from trainers.data.rows import BadRow
from trainers.errors import InputProblem
from trainers.templates import NO_TEMPLATE, SHIPPED, find, lacking

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

Span = tuple[int, int]

_PROBE = "clusterctl"
_TURNS = [
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": f"{_PROBE} two"},
    {"role": "user", "content": "three"},
    {"role": "assistant", "content": f"{_PROBE} four"},
]


class ChatTemplate:
    """A tokenizer's chat template, checked once for what training needs of it."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        template = tokenizer.chat_template
        if not isinstance(template, str):
            raise InputProblem(
                "the tokenizer has no chat template",
                hint=NO_TEMPLATE,
            )
        self._template = template
        self._words = tokenizer.special_tokens_map
        self._marked = re.search(r"\{%-?\s*generation\s*-?%\}", template) is not None
        self.end = self._end_of_turn(tokenizer)
        self._rewrites = False
        self._told = False
        self._probe()

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
        whole, spans = self._spans_by_marks(conversation) if self._marked else self._spans_by_prompts(conversation)
        self._tell(conversation, whole, spans)
        return whole, spans

    def _spans_by_prompts(self, conversation: Conversation) -> tuple[str, list[Span]]:
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

    def _probe(self) -> None:
        """Look at a conversation of two rounds. Raises InputProblem where the model would learn the wrong thing."""
        try:
            self.text(_TURNS)
        except BadRow:
            return  # one round is all that it takes: longer rows are going to be refused one by one
        for turns in (_TURNS[:2], _TURNS):
            whole, spans = self._spans_by_marks(turns) if self._marked else self._spans_by_prompts(turns)
            if len(spans) != len(turns) // 2:
                raise InputProblem(
                    f"the chat template marks {len(spans)} of {len(turns) // 2} answers as the assistant's",
                    hint="put {% generation %} and {% endgeneration %} around every turn of the assistant",
                )
            if not whole[slice(*spans[-1])].endswith(self.end):
                raise InputProblem(
                    f"the chat template leaves {self.end!r} out of the {{% generation %}} marks, and something stands "
                    "between: the model would never learn to stop",
                    hint="close the mark behind the token that ends the turn",
                )
        alone, first = (self._first_answer(turns) for turns in (_TURNS[:2], _TURNS))
        self._rewrites = not first.startswith(alone.removesuffix(self.end))
        if not self.text(_TURNS).startswith(self.text(_TURNS[:3], ask=True)):
            log.warning(
                "the chat template writes a conversation differently once it goes on: the model is trained on other "
                "text than it will be asked with"
            )

    def _first_answer(self, turns: Conversation) -> str:
        whole, spans = self._spans_by_marks(turns) if self._marked else self._spans_by_prompts(turns)
        return whole[slice(*spans[0])]

    def _tell(self, conversation: Conversation, whole: str, spans: list[Span]) -> None:
        """Say once when an answer is not trained as the model would give it."""
        if self._told:
            return
        answers = [message["content"] for message in conversation if message["role"] == "assistant"]
        lost = any(
            "</think>" in answer and "</think>" not in whole[slice(*span)]
            for answer, span in zip(answers, spans, strict=False)
        )
        if lost or (self._rewrites and len(answers) > 1):
            self._told = True
            log.warning(
                "the chat template writes earlier answers without what belongs to the last one, such as thoughts: they "
                "are trained as it writes them. Where that matters, give each answer a row of its own"
            )

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


def use_template_file(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Replace the tokenizer's template by a shipped one or a Jinja file; it is saved with the model.

    Raises InputProblem, also when the tokenizer lacks a token that a shipped template needs: no token is ever added.
    """
    path = find(name)
    try:
        tokenizer.chat_template = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise InputProblem(f"model.chat_template: {path} cannot be read: {e}", hint="name a Jinja file") from None
    missing = [token for token in SHIPPED.get(name, ()) if not _is_one_token(tokenizer, token)]
    if missing:
        raise lacking(name, missing)


def _is_one_token(tokenizer: PreTrainedTokenizerBase, token: str) -> bool:
    """Whether text keeps this token whole. Asking for its id is not enough: unknown ones may have one too."""
    ids = tokenizer(f"a{token}b", add_special_tokens=False)["input_ids"]
    return token in tokenizer.convert_ids_to_tokens(ids)
