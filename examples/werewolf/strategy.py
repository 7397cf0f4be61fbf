"""Facts of the game: one short answer, several wordings of its question, the last held out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from game import HUNTER_FROM, TABLE_SIZES, Role, roles_at
from phrases import CHINESE, ENGLISH, Phrases

FACTS_EN = Path(__file__).with_name("facts_en.txt")
FACTS_ZH = Path(__file__).with_name("facts_zh.txt")

SIDE_PROMPTS_EN = (
    "Which side is the {} on?",
    "With whom does the {} win?",
    "The {} belongs to which side?",
    "Name the side of the {}.",
)
SIDE_PROMPTS_ZH = ("{}属于哪个阵营？", "{}和哪一方一起获胜？", "{}是哪一边的？", "请说出{}的阵营。")

COUNT_PROMPTS_EN = (
    "{size} players: how many cards say {role}?",
    "How many players hold the role {role} at a table of {size}?",
    "In a game of {size}, what is the number of cards with the role {role}?",
    "Count the role {role} among {size} players.",
)
COUNT_PROMPTS_ZH = (
    "{size}人局有几张{role}牌？",
    "{size}名玩家中有多少个{role}？",
    "{size}人一起玩，{role}的数量是多少？",
    "{size}人的游戏里，{role}有几个？",
)


@dataclass(frozen=True)
class Fact:
    """One answer and the prompts that ask for it."""

    answer: str
    prompts: tuple[str, ...]


def facts() -> list[Fact]:
    """All facts, English first."""
    return [
        *_written(FACTS_EN),
        *_sides(ENGLISH, SIDE_PROMPTS_EN),
        *_counts(ENGLISH, COUNT_PROMPTS_EN),
        *_written(FACTS_ZH),
        *_sides(CHINESE, SIDE_PROMPTS_ZH),
        *_counts(CHINESE, COUNT_PROMPTS_ZH),
    ]


def _written(path: Path) -> list[Fact]:
    """The facts of a text file: a line is an answer, the indented lines below it are its prompts."""
    found: list[tuple[str, list[str]]] = []
    for line in path.read_text(encoding="utf-8").format(hunter_from=HUNTER_FROM).splitlines():
        if line.startswith("#"):
            continue
        if line.startswith(" "):
            found[-1][1].append(line.strip())
        else:
            found.append((line, []))
    return [Fact(answer, tuple(prompts)) for answer, prompts in found]


def _sides(words: Phrases, prompts: tuple[str, ...]) -> Iterator[Fact]:
    village, werewolves = words.sides.values()
    for role, name in words.roles.items():
        answer = werewolves if role is Role.WEREWOLF else village
        yield Fact(answer, tuple(prompt.format(name) for prompt in prompts))


def _counts(words: Phrases, prompts: tuple[str, ...]) -> Iterator[Fact]:
    for size in TABLE_SIZES:
        for role in (Role.WEREWOLF, Role.VILLAGER, Role.HUNTER):
            answer = str(roles_at(size).count(role))
            yield Fact(answer, tuple(prompt.format(size=size, role=words.roles[role]) for prompt in prompts))
