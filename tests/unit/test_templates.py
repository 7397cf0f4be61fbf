"""Shipped chat templates against the published format of each model, written down here by hand."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.documents import ROOT
from trainers.data.kinds import Conversation
from trainers.data.template import ChatTemplate, use_template_file
from trainers.errors import InputProblem
from trainers.templates import SHIPPED, find

TURNS: Conversation = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Who?"},
    {"role": "assistant", "content": "Player 3."},
    {"role": "user", "content": "Why?"},
    {"role": "assistant", "content": "The vote."},
]

# tokenizer_config.json of Qwen/Qwen2-7B-Instruct
QWEN2 = (
    "<|im_start|>system\nBe brief.<|im_end|>\n"
    "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\nPlayer 3.<|im_end|>\n"
    "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\nThe vote.<|im_end|>\n"
)
# "Llama 3 prompt format" in Meta's documentation; tokenizer_config.json of Meta-Llama-3-8B-Instruct
LLAMA3 = (
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nWho?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nPlayer 3.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nThe vote.<|eot_id|>"
)
# PROMPT.md of ChatGLM3 and build_single_message of its tokenizer; the end token as in its fine-tuning
CHATGLM3 = (
    "[gMASK]sop<|system|>\n Be brief."
    "<|user|>\n Who?<|assistant|>\n Player 3."
    "<|user|>\n Why?<|assistant|>\n The vote.</s>"
)
# generation_utils.py of Baichuan2-7B-Chat; the end token as in its fine-tuning
BAICHUAN2 = "Be brief.<reserved_106>Who?<reserved_107>Player 3.<reserved_106>Why?<reserved_107>The vote.</s>"
# "Chat Completion" in the README of deepseek-llm-7b-chat
DEEPSEEK = (
    "<｜begin▁of▁sentence｜>Be brief.\n\nUser: Who?\n\nAssistant: Player 3.<｜end▁of▁sentence｜>"
    "User: Why?\n\nAssistant: The vote.<｜end▁of▁sentence｜>"
)

WHOLE = {
    "qwen2_chatml": QWEN2,
    "llama3_instruct": LLAMA3,
    "chatglm3": CHATGLM3,
    "baichuan2_chat": BAICHUAN2,
    "deepseek_chat": DEEPSEEK,
}
ASKED = {
    "qwen2_chatml": "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nWho?<|im_end|>\n"
    "<|im_start|>assistant\n",
    "llama3_instruct": "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nWho?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "chatglm3": "[gMASK]sop<|user|>\n Who?<|assistant|>",
    "baichuan2_chat": "<reserved_106>Who?<reserved_107>",
    "deepseek_chat": "<｜begin▁of▁sentence｜>User: Who?\n\nAssistant:",
}
"""A question alone, without a system message, up to where the model begins."""

LEARNT = {
    "qwen2_chatml": ["Player 3.<|im_end|>", "The vote.<|im_end|>"],
    "llama3_instruct": ["Player 3.<|eot_id|>", "The vote.<|eot_id|>"],
    # The next role is what ends a turn.
    "chatglm3": ["\n Player 3.<|user|>", "\n The vote.</s>"],
    # Nothing stands between turns; the end is learnt where the conversation ends.
    "baichuan2_chat": ["Player 3.", "The vote.</s>"],
    "deepseek_chat": [" Player 3.<｜end▁of▁sentence｜>", " The vote.<｜end▁of▁sentence｜>"],
}


def make_tokenizer(special: tuple[str, ...]) -> Any:
    """Bytes as tokens, and these special ones; the last of them ends a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    plain = Tokenizer(models.BPE(vocab=letters, merges=[]))
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    plain.decoder = decoders.ByteLevel()
    plain.add_special_tokens(list(special))
    return PreTrainedTokenizerFast(tokenizer_object=plain, eos_token=special[-1])


def use(name: str) -> tuple[Any, ChatTemplate]:
    tokenizer = make_tokenizer(SHIPPED[name])
    use_template_file(tokenizer, name)
    return tokenizer, ChatTemplate(tokenizer)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_character_is_as_published(name: str) -> None:
    tokenizer, template = use(name)
    assert template.text(TURNS) == WHOLE[name]
    assert template.text(TURNS[1:2], ask=True) == ASKED[name]
    # The text that is trained on begins with what the model is asked with.
    for position in (2, 4):
        assert WHOLE[name].startswith(template.text(TURNS[:position], ask=True))
    # transformers itself, as whoever loads the saved model uses it, says the same.
    assert tokenizer.apply_chat_template(TURNS, tokenize=False) == WHOLE[name]


@pytest.mark.parametrize("name", SHIPPED)
def test_every_token_that_is_learnt(name: str) -> None:
    from collections import Counter

    from trainers.data.dataset import IGNORED, tokenise
    from trainers.data.kinds import Example

    tokenizer, template = use(name)
    whole, spans = template.spans(TURNS)
    assert [whole[slice(*span)] for span in spans] == LEARNT[name]
    [row] = tokenise([Example(TURNS, "row 1")], tokenizer, 500, "training", Counter())
    assert tokenizer.decode(row["input_ids"]) == WHOLE[name]
    learnt = [token for token in row["labels"].tolist() if token != IGNORED]
    assert tokenizer.decode(learnt) == "".join(LEARNT[name])
    # Special tokens arrive whole: one id each, and as many as the text has.
    ids = row["input_ids"].tolist()
    for token in SHIPPED[name]:
        assert ids.count(tokenizer.convert_tokens_to_ids(token)) == WHOLE[name].count(token)


def test_llama3_takes_white_space_off_the_ends() -> None:
    _, template = use("llama3_instruct")
    turns = [{"role": "user", "content": " Who? \n"}, {"role": "assistant", "content": "\n3 "}]
    assert template.text(turns) == (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nWho?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n3<|eot_id|>"
    )


def test_a_tokenizer_without_the_tokens_is_refused() -> None:
    llama = make_tokenizer(SHIPPED["llama3_instruct"])
    with pytest.raises(InputProblem) as refused:
        use_template_file(llama, "qwen2_chatml")
    assert refused.value.message == (
        "model.chat_template qwen2_chatml needs <|im_start|>, <|im_end|>, "
        "which the tokenizer does not have as one token"
    )
    assert "own family" in refused.value.hint
    assert len(llama) == 256 + 4  # nothing was added


def test_the_template_travels_with_what_is_saved(tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    tokenizer, _ = use("deepseek_chat")
    tokenizer.save_pretrained(tmp_path)
    assert (tmp_path / "chat_template.jinja").read_text(encoding="utf-8") == tokenizer.chat_template
    again = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert again.apply_chat_template(TURNS, tokenize=False) == DEEPSEEK


def test_names_and_files(tmp_path: Path) -> None:
    with pytest.raises(InputProblem) as wrong:
        find("qwen_chatml")
    assert "did you mean qwen2_chatml?" in wrong.value.hint
    own = tmp_path / "own.jinja"
    own.write_text("{{ messages[0]['content'] }}", encoding="utf-8")
    assert find(str(own)) == own


QWEN3 = (
    # Only the last answer keeps its thoughts, an empty block where it has none.
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}"
    "{% set answer = m['content'].split('</think>')[-1].lstrip('\n') %}{% if loop.last %}"
    "{% set thought = m['content'].split('</think>')[0].split('<think>')[-1] if '</think>' in m['content'] else '' %}"
    "<think>\n{{ thought.strip('\n') }}\n</think>\n\n{% endif %}"
    "{{ answer }}{% else %}{{ m['content'] }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_a_template_that_drops_earlier_thoughts_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = make_tokenizer(SHIPPED["qwen2_chatml"])
    tokenizer.chat_template = QWEN3
    template = ChatTemplate(tokenizer)
    single = [TURNS[1], {"role": "assistant", "content": "<think>\nA look.\n</think>\n\nPlayer 3."}]
    whole, [(start, stop)] = template.spans(single)
    assert whole[start:stop] == "<think>\nA look.\n</think>\n\nPlayer 3.<|im_end|>"
    assert not caplog.records
    for _ in range(2):
        whole, spans = template.spans([*single, *TURNS[3:]])
    assert [whole[slice(*span)] for span in spans] == [
        "Player 3.<|im_end|>",
        "<think>\n\n</think>\n\nThe vote.<|im_end|>",
    ]
    [record] = caplog.records
    assert "earlier answers without what belongs to the last one" in record.message


def marked(answer: str) -> str:
    return (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}"
        f"{answer}"
        "{% else %}{{ m['content'] }}<|im_end|>\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )


@pytest.mark.parametrize(
    ("template", "words"),
    [
        # The mark ends early, and a word stands before the token that stops.
        (
            marked("{% generation %}{{ m['content'] }}{% endgeneration %}{{ ' ' * loop.index }}<|im_end|>\n"),
            "never learn to stop",
        ),
        (
            marked("{% if loop.last %}{% generation %}{{ m['content'] }}<|im_end|>{% endgeneration %}{% endif %}\n"),
            "marks 1 of 2 answers",
        ),
        ("{{ messages | length }}" + marked("{{ m['content'] }}<|im_end|>\n"), "differently once it goes on"),
    ],
)
def test_templates_from_which_the_wrong_thing_would_be_learnt(template: str, words: str) -> None:
    tokenizer = make_tokenizer(SHIPPED["qwen2_chatml"])
    tokenizer.chat_template = template
    with pytest.raises(InputProblem, match=words):
        ChatTemplate(tokenizer)


def test_a_prompt_that_is_not_what_was_trained_on_is_said(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = make_tokenizer(SHIPPED["qwen2_chatml"])
    tokenizer.chat_template = "{{ messages | length }}" + marked(
        "{% generation %}{{ m['content'] }}<|im_end|>{% endgeneration %}\n"
    )
    ChatTemplate(tokenizer)
    [record] = caplog.records
    assert "other text than it will be asked with" in record.message


def test_the_wheel_has_the_templates(tmp_path: Path) -> None:
    import subprocess
    import sys

    argv = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [wheel] = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    assert {f"trainers/templates/{name}.jinja" for name in SHIPPED} <= held
    assert "clusterctl/_shipped/job_templates/show.sh.j2" in held
