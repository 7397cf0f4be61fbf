"""The prompts and the reward function of a run in the form that verl reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainers.data.kinds import Prompt
from trainers.rewards.load import BadReward, Reward, extras, load_rewards
from trainers.rewards.text import EXPECTED

REWARD_FILE = '''\
"""Written by clusterctl: the reward function that verl calls. What it knows is in reward.json beside it."""

from pathlib import Path

from trainers.verl.data import Rater

_rater = Rater(Path(__file__).with_name("reward.json"))


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **others):
    return _rater.rate(solution_str, extra_info)
'''


def write_prompts(path: Path, prompts: Sequence[Prompt]) -> None:
    """A parquet file with the columns that verl's RLHFDataset and its reward manager read.

    The row's own columns travel as JSON: a table would make one type of each column, and one set of keys of
    all objects in it.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = []
    for number, prompt in enumerate(prompts):
        answer = next((prompt.columns[name] for name in EXPECTED if prompt.columns.get(name) is not None), "")
        columns = json.dumps(prompt.columns, ensure_ascii=False, default=str)
        rows.append(
            {
                "data_source": "clusterctl",
                "prompt": prompt.prompt,
                "ability": "",
                "reward_model": {"style": "rule", "ground_truth": str(answer)},
                "extra_info": {
                    "index": number,
                    "columns": columns,
                    "prompt": json.dumps(prompt.prompt, ensure_ascii=False),
                    "origin": prompt.origin,
                },
            }
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def write_reward(folder: Path, names: Sequence[str], weights: Sequence[float], example: Prompt) -> None:
    """``reward.py`` and ``reward.json``: which functions, with which weights."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "reward.py").write_text(REWARD_FILE, encoding="utf-8")
    tried = {"prompt": example.prompt, "columns": example.columns, "origin": example.origin}
    known = {"functions": list(names), "weights": list(weights) or [1.0] * len(names), "example": tried}
    (folder / "reward.json").write_text(json.dumps(known, ensure_ascii=False, default=str), encoding="utf-8")


class Rater:
    """The reward functions of a run as verl calls them: one answer at a time, the sum back."""

    def __init__(self, path: Path) -> None:
        known = json.loads(path.read_text(encoding="utf-8"))
        self._weights = known["weights"]
        self._rewards: list[Reward] = load_rewards(known["functions"], [Prompt(**known["example"])])

    def rate(self, answer: str, info: dict[str, Any]) -> dict[str, float]:
        """``score``, which verl trains on, and what each function said. Raises RuntimeError in one line."""
        columns = {name: [value] for name, value in json.loads(info["columns"]).items()}
        prompts = [json.loads(info["prompt"])]
        completions = [[{"role": "assistant", "content": answer}]]
        score, said = 0.0, {}
        for reward, weight in zip(self._rewards, self._weights, strict=True):
            try:
                (value,) = reward(prompts, completions, **columns, **extras(1))
            except BadReward as e:
                raise RuntimeError(f"reward function failed, answer to {info['origin']}: {e}") from None
            # verl makes one table of what comes back, so every answer has to have every number.
            said[f"reward_{reward.__name__}"] = 0.0 if value is None else value
            score += weight * (value or 0.0)
        return {"score": score, **said}
