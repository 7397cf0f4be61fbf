"""Reward functions: those that come with the program, and how a user's own is found and called.

A reward function is called as TRL calls it, with one entry for each answer in every list:

    def my_reward(prompts, completions, **columns) -> list[float | None]

``prompts`` are conversations, ``completions`` lists of one message of the assistant, and ``columns`` holds the
other columns of the row that each prompt came from. None means that the function has no opinion on this answer.
Standard library only: a login node checks names and files with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path

from trainers.rewards import own
from trainers.rewards.exact_match import exact_match
from trainers.rewards.format import format_reward
from trainers.rewards.length import length
from trainers.rewards.werewolf import werewolf_verdict

SHIPPED: dict[str, Callable[..., list[float | None]]] = {
    "exact_match": exact_match,
    "format": format_reward,
    "length": length,
    "werewolf_verdict": werewolf_verdict,
}
"""Reward functions by the name that ``method.reward_functions`` gives them."""


def split(name: str) -> tuple[str, str] | None:
    """The file and the function of ``FILE.py:FUNCTION``; None for the name of a shipped function."""
    path, colon, function = name.rpartition(":")
    return (path, function) if colon else None


def name_problem(name: str) -> str | None:
    """What is wrong with an entry of ``method.reward_functions``, in words; None when nothing is."""
    own = split(name)
    if own:
        path, function = own
        if path.endswith(".py") and function.isidentifier():
            return None
        return f"{name} is not FILE.py:FUNCTION"
    if name in SHIPPED:
        return None
    near = get_close_matches(name, SHIPPED, n=1)
    question = f", did you mean {near[0]}?" if near else ""
    shipped = ", ".join(SHIPPED)
    return f"there is no reward {name}{question} (shipped are {shipped}; one of your own is FILE.py:FUNCTION)"


def check(names: Sequence[str]) -> None:
    """Look at the files of a user's own functions without running them. Raises InputProblem."""
    for path, function in filter(None, map(split, names)):
        own.check(Path(path), function)
