"""A seeded simulation of Werewolf (狼人杀) under the rules of README.md.

The rules are the functions ``roles_at``, ``winner``, ``voted_out`` and the methods of ``_Table``; ``play`` lets simple
players follow them. Players are numbers from 1.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

TABLE_SIZES = (6, 7, 8, 9, 10, 12)
HUNTER_FROM = 8
"""The smallest table that has a hunter."""


class Role(StrEnum):
    WEREWOLF = "werewolf"
    SEER = "seer"
    WITCH = "witch"
    HUNTER = "hunter"
    VILLAGER = "villager"


class Side(StrEnum):
    VILLAGE = "village"
    WEREWOLVES = "werewolves"


def roles_at(size: int) -> list[Role]:
    """The roles dealt to ``size`` players: a third are werewolves, rounded down; the rest is the village."""
    roles = [Role.WEREWOLF] * (size // 3) + [Role.SEER, Role.WITCH]
    if size >= HUNTER_FROM:
        roles.append(Role.HUNTER)
    return roles + [Role.VILLAGER] * (size - len(roles))


def winner(living: Iterable[Role]) -> Side | None:
    """The side that has won when these roles are alive, or None while the game goes on."""
    roles = list(living)
    werewolves = roles.count(Role.WEREWOLF)
    if werewolves == 0:
        return Side.VILLAGE
    return Side.WEREWOLVES if 2 * werewolves >= len(roles) else None


def voted_out(votes: dict[int, int]) -> int | None:
    """Who leaves after ``votes`` (voter: target): the player with most votes, or None on a tie."""
    (first, most), *others = Counter(votes.values()).most_common(2)
    return None if others and others[0][1] == most else first


@dataclass(frozen=True)
class Night:
    """What was done in one night, before anybody is told."""

    attacked: int
    healed: bool
    poisoned: int | None

    @property
    def deaths(self) -> list[int]:
        """Who is dead in the morning, lowest number first."""
        killed = [] if self.healed else [self.attacked]
        return sorted(killed if self.poisoned is None else [*killed, self.poisoned])


@dataclass(frozen=True)
class Speech:
    """One player's words: the role that they claim, if any, and whom they suspect."""

    speaker: int
    claim: Role | None
    suspect: int


@dataclass(frozen=True)
class Round:
    """A night and the day after it. ``checks`` holds all of the seer's so far: player -> is a werewolf."""

    number: int
    living_at_night: tuple[int, ...]
    night: Night
    checks: dict[int, bool]
    living_by_day: tuple[int, ...]
    speeches: tuple[Speech, ...] = ()
    votes: dict[int, int] | None = None
    """None when the game ended before the vote."""


@dataclass(frozen=True)
class Game:
    """A finished game. ``play`` with its seed and the same sizes gives it again."""

    seed: int
    roles: dict[int, Role]
    rounds: tuple[Round, ...]
    living_at_end: tuple[int, ...]


def play(seed: int, sizes: tuple[int, ...] = TABLE_SIZES) -> Game:
    """Play one game at a table of one of ``sizes``. Equal arguments give equal games."""
    return _Table(seed, sizes).play()


class _Table:
    """A game in progress: the cards, who is alive, what the witch has left and what the seer knows."""

    def __init__(self, seed: int, sizes: tuple[int, ...]) -> None:
        self.rng = random.Random(seed)
        self.seed = seed
        cards = roles_at(self.rng.choice(sizes))
        self.rng.shuffle(cards)
        self.roles = dict(enumerate(cards, start=1))
        self.living = list(self.roles)
        self.potions = {"heal", "poison"}
        self.checks: dict[int, bool] = {}

    def play(self) -> Game:
        rounds: list[Round] = []
        while not self.over():
            rounds.append(self.play_round(number=len(rounds) + 1))
        return Game(self.seed, self.roles, tuple(rounds), tuple(self.living))

    def over(self) -> bool:
        return winner(self.roles[player] for player in self.living) is not None

    def play_round(self, number: int) -> Round:
        living_at_night = tuple(self.living)
        night = self.night(number)
        checks = dict(self.checks)
        self.leave(night.deaths, poisoned=night.poisoned)
        living_by_day = tuple(self.living)
        if self.over():
            return Round(number, living_at_night, night, checks, living_by_day)
        speeches = tuple(self.speech(player) for player in living_by_day)
        votes = {player: self.vote(player, speeches) for player in living_by_day}
        out = voted_out(votes)
        if out is not None:
            self.leave([out])
        return Round(number, living_at_night, night, checks, living_by_day, speeches, votes)

    def night(self, number: int) -> Night:
        """Werewolves, witch, seer, in this order; all act on those alive at nightfall."""
        attacked = self.rng.choice([p for p in self.living if not self.is_werewolf(p)])
        healed, poisoned = False, None
        witch = self.living_player(Role.WITCH)
        if witch is not None:
            may_heal = "heal" in self.potions and (attacked != witch or number == 1)
            if may_heal and self.rng.random() < 0.5:
                healed = True
                self.potions.remove("heal")
            elif "poison" in self.potions and self.rng.random() < 0.5:
                poisoned = self.rng.choice([p for p in self.living if p not in (witch, attacked)])
                self.potions.remove("poison")
        seer = self.living_player(Role.SEER)
        unchecked = [p for p in self.living if p != seer and p not in self.checks]
        if seer is not None and unchecked:
            checked = self.rng.choice(unchecked)
            self.checks[checked] = self.is_werewolf(checked)
        return Night(attacked, healed, poisoned)

    def leave(self, players: list[int], *, poisoned: int | None = None) -> None:
        """Take ``players`` out of the game; a hunter among them, unless poisoned, takes somebody along."""
        self.living = [p for p in self.living if p not in players]
        hunter_shoots = any(self.roles[p] is Role.HUNTER and p != poisoned for p in players)
        if hunter_shoots and not self.over():
            self.living.remove(self.rng.choice(self.living))

    def speech(self, speaker: int) -> Speech:
        role = self.roles[speaker]
        others = [p for p in self.living if p != speaker]
        if role is Role.WEREWOLF:
            claim = self.rng.choice([None, *self.village_roles()])
            return Speech(speaker, claim, self.rng.choice([p for p in others if not self.is_werewolf(p)]))
        if role is Role.SEER:
            found = [p for p in others if self.checks.get(p)]
            if found:
                return Speech(speaker, role, found[0])
            others = [p for p in others if p not in self.checks] or others
        return Speech(speaker, self.rng.choice([None, role]), self.rng.choice(others))

    def vote(self, voter: int, speeches: tuple[Speech, ...]) -> int:
        """The voter's own suspect, or one that somebody else named; werewolves spare each other."""
        own = next(s.suspect for s in speeches if s.speaker == voter)
        if self.roles[voter] is Role.SEER:
            return own
        pack = self.is_werewolf(voter)
        named = [s.suspect for s in speeches if s.suspect != voter and not (pack and self.is_werewolf(s.suspect))]
        return self.rng.choice([own, own, *named])

    def village_roles(self) -> list[Role]:
        return [role for role in Role if role is not Role.WEREWOLF and role in self.roles.values()]

    def living_player(self, role: Role) -> int | None:
        return next((p for p in self.living if self.roles[p] is role), None)

    def is_werewolf(self, player: int) -> bool:
        return self.roles[player] is Role.WEREWOLF
