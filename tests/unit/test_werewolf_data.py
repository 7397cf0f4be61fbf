"""The Werewolf data: generated, never edited; answers follow from prompts; no constant answer scores high."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "werewolf"
STRATEGY_FILES = ("game_strategy_and_term.csv", "eval_strategy.csv")
GAME_FILES = ("train_en.csv", "eval_en.csv", "train_zh.csv", "eval_zh.csv")
STORY_FILES = ("games.jsonl", "eval_games.jsonl")
VERDICT_FILES = ("preferences", "eval_preferences", "ratings", "eval_ratings", "prompts", "eval_prompts")
FILES = STRATEGY_FILES + GAME_FILES
ALL_FILES = (*FILES, *STORY_FILES, *(f"{name}.jsonl" for name in VERDICT_FILES))

NUMBER = r"(?:Player )?(\d+)号?"
"""A player, as in "Player 3" or "3号"."""

Row = dict[str, str]


def read(name: str) -> list[Row]:
    with (EXAMPLE / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (EXAMPLE / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def generate(out: Path, *options: str) -> str:
    command = [sys.executable, "-B", str(EXAMPLE / "generate.py"), "--out", str(out), *options]
    return subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout


def kind(row: Row) -> str:
    return str(json.loads(row["meta"])["kind"])


def games(rows: list[Row]) -> set[int]:
    return {json.loads(row["meta"])["game"] for row in rows}


def test_regenerating_gives_the_same_bytes_and_the_readme_its_table(tmp_path: Path) -> None:
    out = tmp_path / "a'; echo foo"
    summary = generate(out)
    assert sorted(path.name for path in out.iterdir()) == sorted(ALL_FILES)
    for name in ALL_FILES:
        assert (out / name).read_bytes() == (EXAMPLE / name).read_bytes(), name
    assert summary in (EXAMPLE / "README.md").read_text(encoding="utf-8")


def test_another_seed_gives_other_games(tmp_path: Path) -> None:
    generate(tmp_path, "--seed", "1")
    with (tmp_path / "train_en.csv").open(encoding="utf-8", newline="") as file:
        assert not games(list(csv.DictReader(file))) & games(read("train_en.csv"))


@pytest.mark.parametrize("name", FILES)
def test_columns_are_as_promised_and_no_cell_is_empty(name: str) -> None:
    rows = read(name)
    columns = ["prompt", "response"] if name in STRATEGY_FILES else ["instruction", "prompt", "response", "meta"]
    for row in rows:
        assert list(row) == columns
        assert all(cell.strip() for cell in row.values()), row
    assert len({row["prompt"] for row in rows}) == len(rows)


def test_the_english_file_needs_every_kind_of_csv_quoting() -> None:
    prompts = [row["prompt"] for row in read("train_en.csv")]
    assert any('"' in prompt and "," in prompt and "\n" in prompt for prompt in prompts)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_held_out_rows_come_from_other_games_and_ask_about_something_else(language: str) -> None:
    train, held_out = read(f"train_{language}.csv"), read(f"eval_{language}.csv")
    assert not games(train) & games(held_out)
    assert not {row["prompt"] for row in train} & {row["prompt"] for row in held_out}


def test_held_out_strategy_rows_are_new_wordings_of_known_answers() -> None:
    train, held_out = (read(name) for name in STRATEGY_FILES)
    assert not {row["prompt"] for row in train} & {row["prompt"] for row in held_out}
    assert {row["response"] for row in held_out} <= {row["response"] for row in train}


@pytest.mark.parametrize("name", GAME_FILES)
def test_every_answer_follows_from_its_prompt(name: str) -> None:
    for row in read(name):
        assert row["response"] == ANSWERS[kind(row)](row["prompt"], name.endswith("_zh.csv")), row


@pytest.mark.parametrize("name", GAME_FILES)
def test_no_constant_answer_scores_high(name: str) -> None:
    rows = read(name)
    highest = {"claim": 0.56, "winner": 0.34}
    assert Counter(row["response"] for row in rows).most_common(1)[0][1] <= 0.1 * len(rows)
    for of_kind in ANSWERS:
        answers = Counter(row["response"] for row in rows if kind(row) == of_kind)
        assert answers.most_common(1)[0][1] <= highest.get(of_kind, 0.15) * answers.total(), of_kind


def test_the_beginning_of_a_file_holds_every_kind() -> None:
    for name in GAME_FILES:
        assert {kind(row) for row in read(name)[: len(ANSWERS)]} == set(ANSWERS)


def test_the_cards_of_a_table_add_up() -> None:
    cards: dict[int, Counter[str]] = {}
    for row in read("game_strategy_and_term.csv"):
        if match := re.fullmatch(r"(\d+) players: how many cards say (\w+)\?", row["prompt"]):
            cards.setdefault(int(match[1]), Counter())[match[2]] = int(row["response"])
    assert sorted(cards) == [6, 7, 8, 9, 10, 12]
    for size, counts in cards.items():
        seer_and_witch = 2
        assert counts.total() + seer_and_witch == size
        assert counts["werewolf"] == size // 3


def is_right(prompt: str, answer: str) -> bool:
    """Whether one of the kinds of question has this answer."""
    last = prompt.splitlines()[-1]
    [found] = [name for name, form in FORMS.items() if re.fullmatch(form, last)]
    return ANSWERS[found](prompt.split("\n\n", 1)[1], not last.isascii()) == answer


FORMS = {
    "check": r"Who is a werewolf\?|谁是狼人？",
    "suspect": r"Whom does .* suspect\?|.*怀疑谁？",
    "role": r"Who claims the role of .*\?|谁自称.*？",
    "claim": r"Can this claim be true\?|这个身份可能是真的吗？",
    "night": r"Who dies\?|谁死了？",
    "vote": r"Who is voted out\?|谁被投票出局？",
    "winner": r"Who has won\?|谁获胜了？",
}


@pytest.mark.parametrize("begin", ["", "eval_"])
def test_the_chosen_answer_is_right_and_the_rejected_one_wrong(begin: str) -> None:
    for row in lines(f"{begin}preferences"):
        assert list(row) == ["prompt", "chosen", "rejected"]
        assert is_right(row["prompt"], row["chosen"]) and not is_right(row["prompt"], row["rejected"]), row
    rated = lines(f"{begin}ratings")
    assert all(is_right(row["prompt"], row["completion"]) is row["label"] for row in rated)
    assert sum(row["label"] for row in rated) * 2 == len(rated)
    assert all(is_right(row["prompt"], row["answer"]) for row in lines(f"{begin}prompts"))


def test_the_stages_after_sft_see_other_games_than_it() -> None:
    seen = {f"{row['instruction']}\n\n{row['prompt']}" for name in GAME_FILES[::2] for row in read(name)}
    asked, held_out = ({row["prompt"] for row in lines(name)} for name in ("prompts", "eval_prompts"))
    assert not asked & seen
    assert not held_out & (asked | seen)
    assert len(asked) == 224


def test_stories_are_whole_games() -> None:
    stories = [row["text"] for row in lines("games")]
    assert len(set(stories)) == len(stories) == 80
    assert not {row["text"] for row in lines("eval_games")} & set(stories)
    for story in stories:
        assert story.startswith(("A game of Werewolf.", "一局狼人杀。"))
        assert re.search(r"The winner: (Village|Werewolves)\.$|获胜阵营：(好人|狼人)。$", story)


def player(number: str | int, chinese: bool) -> str:
    return f"{number}号" if chinese else f"Player {number}"


def nobody(chinese: bool) -> str:
    return "无人" if chinese else "Nobody"


def quotes(prompt: str) -> list[tuple[str, str]]:
    """Speaker and words of every speech in the prompt."""
    return re.findall(rf'^{NUMBER}(?:: "|：“)(.*)["”]$', prompt, flags=re.MULTILINE)


def found_werewolves(prompt: str) -> list[str]:
    return re.findall(rf"{NUMBER}(?: is a werewolf|是狼人)", prompt)


def answer_check(prompt: str, chinese: bool) -> str:
    [werewolf] = found_werewolves(prompt)
    return player(werewolf, chinese)


def answer_claim(prompt: str, chinese: bool) -> str:
    [(speaker, _)] = quotes(prompt)
    assert re.search(rf"\b{speaker}(?: is |号是)", prompt), "the speaker was not checked"
    yes, no = ("是", "否") if chinese else ("Yes", "No")
    return no if speaker in found_werewolves(prompt) else yes


def answer_suspect(prompt: str, chinese: bool) -> str:
    *_, question = prompt.splitlines()
    speaker = re.findall(NUMBER, question)[0]
    [suspect] = re.findall(NUMBER, dict(quotes(prompt))[speaker])
    return player(suspect, chinese)


def answer_role(prompt: str, chinese: bool) -> str:
    *_, question = prompt.splitlines()
    [role] = re.findall(r"role of (\w+)\?|谁自称(\w+)？", question)
    [speaker] = [speaker for speaker, words in quotes(prompt) if "".join(role) in words]
    return player(speaker, chinese)


def answer_night(prompt: str, chinese: bool) -> str:
    attacked = set(re.findall(rf"(?:attack |狼人刀){NUMBER}", prompt))
    healed = set(re.findall(rf"(?:heals |女巫救){NUMBER}", prompt))
    poisoned = set(re.findall(rf"(?:poisons |女巫毒){NUMBER}", prompt))
    assert len(attacked) == 1
    dead = sorted(attacked - healed | poisoned, key=int)
    return ("和" if chinese else " and ").join(player(number, chinese) for number in dead) or nobody(chinese)


def answer_vote(prompt: str, chinese: bool) -> str:
    votes: Counter[str] = Counter(target for _, target in re.findall(r"(\d+)(?: for |投)(\d+)", prompt))
    most = max(votes.values())
    first = [target for target, count in votes.items() if count == most]
    return player(first[0], chinese) if len(first) == 1 else nobody(chinese)


def answer_winner(prompt: str, chinese: bool) -> str:
    living = re.findall(r"\d+(?: |号)(\w+)", prompt)
    werewolves = living.count("狼人" if chinese else "werewolf")
    if werewolves == 0:
        return "好人" if chinese else "Village"
    if 2 * werewolves >= len(living):
        return "狼人" if chinese else "Werewolves"
    return nobody(chinese)


ANSWERS = {
    "check": answer_check,
    "suspect": answer_suspect,
    "role": answer_role,
    "claim": answer_claim,
    "night": answer_night,
    "vote": answer_vote,
    "winner": answer_winner,
}
