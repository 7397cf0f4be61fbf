"""Right and wrong answers to the same questions, for the stages that learn from preferences and rewards."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Sequence

from questions import Question

JsonRow = dict[str, object]


def preferences(questions: Sequence[Question], rng: random.Random) -> list[JsonRow]:
    """The right answer preferred to a wrong one."""
    wrong = _wrong_answers(questions, rng)
    return [
        {"prompt": _prompt(question), "chosen": question.response, "rejected": answer}
        for question, answer in zip(questions, wrong, strict=True)
    ]


def ratings(questions: Sequence[Question], rng: random.Random) -> list[JsonRow]:
    """One answer to each question, good or bad in equal parts."""
    wrong = _wrong_answers(questions, rng)
    good = [number % 2 == 0 for number in range(len(questions))]
    rng.shuffle(good)
    return [
        {"prompt": _prompt(question), "completion": question.response if label else answer, "label": label}
        for question, answer, label in zip(questions, wrong, good, strict=True)
    ]


def prompts(questions: Sequence[Question]) -> list[JsonRow]:
    """The question alone, with the answer beside it for whoever gives the reward."""
    return [{"prompt": _prompt(question), "answer": question.response} for question in questions]


def _prompt(question: Question) -> str:
    """As sft sees the row: the instruction, an empty line, the question."""
    return f"{question.instruction}\n\n{question.prompt}"


def _wrong_answers(questions: Sequence[Question], rng: random.Random) -> list[str]:
    """A wrong answer to each: one that is right elsewhere and, where possible, names players of this question."""
    known: dict[str, set[str]] = defaultdict(set)
    for question in questions:
        known[question.instruction + question.kind].add(question.response)
    chosen = []
    for question in questions:
        others = sorted(known[question.instruction + question.kind] - {question.response})
        here = _numbers(question.prompt)
        chosen.append(rng.choice([text for text in others if _numbers(text) <= here] or others))
    return chosen


def _numbers(text: str) -> set[str]:
    return set(re.findall(r"\d+", text))
