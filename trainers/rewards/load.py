"""The reward functions of a run: found, tried on one answer before any model is loaded, and guarded while training."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from trainers.data.kinds import Prompt
from trainers.errors import InputProblem, TrainerError
from trainers.rewards import SHIPPED, name_problem, own, split

TRIED = "I think that the answer is 42."
"""The answer that every function has to be able to rate before training starts."""


class BadReward(Exception):
    """A reward function raised, or returned something that is no rating; the message is one line.

    ``index`` is the answer that it stumbled over, counted from 0; None where that cannot be told.
    """

    def __init__(self, message: str, index: int | None = None) -> None:
        super().__init__(message)
        self.index = index


class Reward:
    """One reward function. TRL calls it, and names metrics after ``__name__``."""

    def __init__(self, name: str, function: Callable[..., Any], path: Path | None = None) -> None:
        self.__name__ = name
        self.path = path
        self._function = function

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        """Rate the answers. Raises BadReward; TrainerError passes."""
        try:
            return self._rate(prompts, completions, columns)
        except TrainerError:
            raise
        # Whatever a stranger's code raises, SystemExit of a helper among it.
        except (Exception, SystemExit) as e:  # noqa: BLE001
            problem = str(e) if isinstance(e, BadReward) else own.where(e, self.path)
            index = e.index if isinstance(e, BadReward) else None
            raise BadReward(problem, self._culprit(prompts, completions, columns) if index is None else index) from None

    def _rate(self, prompts: Sequence[Any], completions: Sequence[Any], columns: dict[str, Any]) -> list[float | None]:
        rated = self._function(prompts=prompts, completions=completions, **columns)
        if inspect.iscoroutine(rated):
            rated = asyncio.run(rated)
        place = f"{self.path}: " if self.path else ""
        if not isinstance(rated, list | tuple) and not hasattr(rated, "tolist"):
            raise BadReward(f"{place}{self.__name__} returned {type(rated).__name__}, not a list")
        values = list(rated.tolist() if hasattr(rated, "tolist") else rated)
        if len(values) != len(completions):
            raise BadReward(f"{place}{self.__name__} returned {len(values)} ratings for {len(completions)} answers")
        return [self._number(value, index, place) for index, value in enumerate(values)]

    def _number(self, value: Any, index: int, place: str) -> float | None:
        if value is None:
            return None
        try:
            number = math.inf if isinstance(value, str | bytes) else float(value)
        except (TypeError, ValueError):
            number = math.inf
        if math.isinf(number):
            raise BadReward(f"{place}{self.__name__} returned {value!r:.80}, which is no finite number", index)
        return None if math.isnan(number) else number

    def _culprit(self, prompts: Sequence[Any], completions: Sequence[Any], columns: dict[str, Any]) -> int | None:
        """Which answer a function cannot rate: the first that it fails on alone."""
        count = len(completions)
        for index in range(count):
            one = {
                name: value[index : index + 1] if isinstance(value, list) and len(value) == count else value
                for name, value in columns.items()
            }
            try:
                self._rate(prompts[index : index + 1], completions[index : index + 1], one)
            except (Exception, SystemExit):  # noqa: BLE001  (as above)
                return index
        return None


def load_rewards(names: Sequence[str], prompts: Sequence[Prompt]) -> list[Reward]:
    """The reward functions of ``method.reward_functions``, each tried on one answer. Raises InputProblem."""
    rewards: list[Reward] = []
    for name in names:
        if problem := name_problem(name):
            raise InputProblem(f"method.reward_functions: {problem}", hint=own.HINT)
        parts = split(name)
        if parts:
            path = Path(parts[0]).expanduser().absolute()
            reward = Reward(parts[1], own.load(path, parts[1]), path)
        else:
            reward = Reward(name, SHIPPED[name])
        # Metrics are named after functions: two of one name would be added up under it.
        twins = sum(other.__name__.partition("#")[0] == reward.__name__ for other in rewards)
        reward.__name__ += f"#{twins + 1}" if twins else ""
        _try(reward, prompts[0])
        rewards.append(reward)
    return rewards


def _try(reward: Reward, prompt: Prompt) -> None:
    arguments = {name: [value] for name, value in prompt.columns.items()}
    answer = [{"role": "assistant", "content": TRIED}]
    try:
        reward([prompt.prompt], [answer], **arguments, **extras(1))
    except BadReward as e:
        raise InputProblem(
            f"reward {reward.__name__}, tried on the answer {TRIED!r} to {prompt.origin}: {e}", hint=own.HINT
        ) from None


def extras(count: int) -> dict[str, Any]:
    """Stand-ins for what TRL hands over beside the columns."""
    return {
        "completion_ids": [[0]] * count,
        "trainer_state": SimpleNamespace(global_step=0, max_steps=1, epoch=0.0),
        "log_extra": lambda column, values: None,
        "log_metric": lambda name, value: None,
    }
