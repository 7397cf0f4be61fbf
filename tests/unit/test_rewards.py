"""Reward functions: what the shipped ones reward, and what is said of a user's own that cannot be used."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from trainers.config import explain, parse
from trainers.config.groups import group_problem
from trainers.data.kinds import Prompt
from trainers.errors import InputProblem
from trainers.rewards import SHIPPED, own
from trainers.rewards.load import BadReward, Reward, load_rewards

EXAMPLE = Path(__file__).parents[2] / "examples" / "werewolf"


def rate(name: str, *texts: str, **columns: list[object]) -> list[float | None]:
    completions = [[{"role": "assistant", "content": text}] for text in texts]
    return SHIPPED[name](prompts=[[]] * len(texts), completions=completions, **columns)


def test_exact_match_looks_past_white_space_and_into_tags() -> None:
    texts = ("Player 3", " Player\n 3 ", "Player 33", "It says 3. <answer> Player 3 </answer>", "whatever")
    answers: list[object] = ["Player 3"] * 4 + [None]
    assert rate("exact_match", *texts, answer=answers) == [1, 1, 0, 1, None]
    assert rate("exact_match", "42", response=[42]) == [1]
    with pytest.raises(InputProblem, match="exact_match needs a column with the expected answer: answer, response"):
        rate("exact_match", "x", meta=["y"])


def test_format_wants_one_answer_in_tags_at_the_end_or_the_pattern_of_the_row() -> None:
    good = ("<answer>a</answer>", "Because.\nSo: <answer>\na\n</answer>\n")
    bad = (
        "a",
        "<answer></answer>",
        "<answer> </answer>",
        "<answer>a</answer> or so",
        "<answer>a</answer><answer>b</answer>",
        "<answer>a<answer>b</answer>",
    )
    assert rate("format", *good) == [1, 1]
    assert rate("format", *bad) == [0] * len(bad)
    assert rate("format", "Yes", "Yes.", "<answer>a</answer>", pattern=["Yes|No", "Yes|No", None]) == [1, 0, 1]


def test_length_falls_evenly_from_the_bound_to_twice_the_bound() -> None:
    texts = ("", "x" * 400, "x" * 600, "x" * 801)
    assert rate("length", *texts) == [0, 1, 0.5, 0]
    assert rate("length", "狼" * 10, "狼" * 15, max_characters=[10, 10]) == [1, 0.5]


@pytest.mark.parametrize(
    ("answer", "said", "reward"),
    [
        ("Player 3", "I think it is Player 3.", 1),
        ("Player 3", "Player 3 or Player 4", 0),
        ("Player 3", "Player 4 lies.\nPlayer 3", 1),
        ("Player 3", "Player 30", 0),
        ("Player 4 and Player 9", "Player 4", 0),
        ("Player 4 and Player 9", "Player 9, player 4", 1),
        ("3号", "<answer>3号是狼人</answer>", 1),
        ("3号", "是3号和4号", 0),
        ("Yes", "Yes, it can.", 1),
        ("Yes", "Yes No", 0),
        ("No", "Nobody", 0),
        ("Nobody", "Nobody dies.", 1),
        ("是", "是的", 1),
        ("否", "不是", 1),
        ("是", "不是", 0),
        ("好人", "好人胜", 1),
        ("狼人", "好人", 0),
        ("无人", "无人出局", 1),
        ("Werewolves", "the werewolves have won", 1),
        ("Werewolves", "", 0),
    ],
)
def test_werewolf_verdict(answer: str, said: str, reward: float) -> None:
    assert rate("werewolf_verdict", said, answer=[answer]) == [reward]


@pytest.mark.parametrize("name", ["train_en.csv", "train_zh.csv"])
def test_every_answer_of_the_werewolf_data_is_right_and_no_other_answer_is(name: str) -> None:
    with (EXAMPLE / name).open(encoding="utf-8", newline="") as file:
        answers = [row["response"] for row in csv.DictReader(file)]
    assert rate("werewolf_verdict", *answers, response=answers) == [1] * len(answers)
    kinds = sorted(set(answers))
    for answer in kinds:
        told: list[object] = [answer] * len(kinds)
        assert sum(r or 0 for r in rate("werewolf_verdict", *kinds, response=told)) == 1, answer


def test_the_prompts_of_the_example_have_a_verdict() -> None:
    rows = [json.loads(line) for line in (EXAMPLE / "prompts.jsonl").read_text(encoding="utf-8").splitlines()]
    answers = [row["answer"] for row in rows]
    assert rate("werewolf_verdict", *answers, answer=answers) == [1] * len(rows)


# --- a user's own -----------------------------------------------------------------------------

PROMPT = Prompt([{"role": "user", "content": "?"}], {"answer": "42", "odd": {"a": 1}}, "data.jsonl row 1 (line 1)")


def own_file(folder: Path, text: str) -> Path:
    path = folder / "a'; echo foo.py"
    path.write_text(text, encoding="utf-8")
    return path


def test_own_functions_are_called_as_trl_calls_them(tmp_path: Path) -> None:
    (tmp_path / "neighbour.py").write_text("ONE = 1", encoding="utf-8")
    path = own_file(
        tmp_path,
        "from neighbour import ONE\n"
        "async def f(prompts, completions, answer, odd, trainer_state, **others):\n"
        "    assert prompts[0][0]['content'] == '?' and odd[0] == {'a': 1} and trainer_state.global_step == 0\n"
        "    return [ONE if c[0]['content'].count(a) else None for c, a in zip(completions, answer)]\n",
    )
    first, second = load_rewards([f"{path}:f", f"{path}:f"], [PROMPT])
    assert (first.__name__, second.__name__) == ("f", "f#2")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def f(x:\n  pass", r"{path}:1: .*"),
        ("def ff(**a):\n    return []", r"{path}: has no function f, did you mean ff\?"),
        ("import os\nimport nothing_such\ndef f(**a): return []", r"{path}:2: ModuleNotFoundError: No module .*"),
        ("import sys\nsys.exit(3)\ndef f(**a): return []", r"{path}:2: SystemExit: 3"),
        ("f = 3", r"{path}: f is no function"),
        ("def g():\n    return 1 / 0\ndef f(**a):\n    return [g()]", r"reward f, .*: {path}:2: ZeroDivisionError.*"),
        ("def f(completions): return [1]", r"reward f, tried .*: {path}: TypeError: .*unexpected keyword argument.*"),
        ("def f(**a): return 1.0", r"reward f, tried .*: {path}: f returned float, not a list"),
        ("def f(**a): return [1, 2]", r"reward f, tried .*: {path}: f returned 2 ratings for 1 answers"),
        ("def f(**a): return ['1']", r"reward f, tried .*: {path}: f returned '1', which is no finite number"),
        ("def f(**a): return [[1]]", r"reward f, tried .*: {path}: f returned \[1\], which is no finite number"),
        ("def f(**a): return [float('inf')]", r"reward f, tried .*: {path}: f returned inf, which is no finite number"),
    ],
)  # fmt: skip
def test_an_own_function_that_cannot_be_used_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = own_file(tmp_path, text)
    with pytest.raises(InputProblem) as caught:
        load_rewards([f"{path}:f"], [PROMPT])
    assert re.fullmatch(said.format(path=re.escape(str(path))), caught.value.message), caught.value.message
    assert caught.value.hint


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputProblem, match=r"reward file .*no\.py: No such file"):
        own.check(tmp_path / "no.py", "f")


def test_while_training_the_answer_that_a_function_stumbles_over_is_named() -> None:
    def picky(completions: list[str], **columns: object) -> list[float]:
        return [1 / len(text) for text in completions]

    with pytest.raises(BadReward) as caught:
        Reward("picky", picky)(["?"] * 3, ["a", "", "b"], answer=["1", "2", "3"])
    assert caught.value.index == 1
    assert str(caught.value) == "ZeroDivisionError: division by zero"
    assert Reward("nan", lambda **a: [float("nan"), True])(["?"] * 2, ["", ""]) == [None, 1.0]


# --- what the configuration says before anything is loaded ------------------------------------


def problems(**method: object) -> list[str]:
    from pydantic import ValidationError

    values = {
        "stage": "grpo",
        "model": {"model_name_or_path": "m"},
        "data": {"train_files": "x.jsonl"},
        "method": {"num_generations": 4, **method},
    }
    try:
        parse(values)
    except ValidationError as e:
        return explain(e, values)
    return []


def test_names_of_rewards_are_checked_with_the_nearest() -> None:
    assert problems(reward_functions=["exact_match", "f.py:f"]) == []
    (line,) = problems(reward_functions=["exact_macth"])
    assert "there is no reward exact_macth, did you mean exact_match?" in line
    (line,) = problems(reward_functions=["f.txt:f"])
    assert "f.txt:f is not FILE.py:FUNCTION" in line
    (line,) = problems(reward_functions=[])
    assert "nothing says which answer is good" in line


def test_steps_hold_whole_groups_and_the_nearest_numbers_are_told() -> None:
    (line,) = problems(reward_functions=["length"], num_generations=3)
    assert "1 x 8 x 1 = 8 answers" in line
    assert "nearest are method.num_generations 2 or optim.gradient_accumulation_steps 9" in line
    for batch in range(1, 7):
        for steps in range(1, 9):
            for processes in (1, 2, 4):
                for group in range(2, 10):
                    said = group_problem(batch, steps, processes, group)
                    assert (said is None) == (batch * steps * processes % group == 0)
                    numbers = re.findall(r"(num_generations|accumulation_steps) (\d+)(?: or|$)", said or "")
                    for name, number in numbers:
                        taken = {"num_generations": (steps, int(number)), "accumulation_steps": (int(number), group)}
                        assert group_problem(batch, taken[name][0], processes, taken[name][1]) is None
