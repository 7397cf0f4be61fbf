"""Questions about a simulated game whose answers follow from the question's own text."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from game import Game, Round, Speech, voted_out, winner
from phrases import Phrases

QUOTED_SPEECHES = 3
"""Speeches in one prompt: enough to choose from, few enough to stay short."""


@dataclass(frozen=True)
class Question:
    """One row of a data file. ``label`` is what is spread evenly over the rows of a kind."""

    kind: str
    instruction: str
    prompt: str
    response: str
    label: str
    game: int
    night: int


def questions(game: Game, words: Phrases) -> Iterator[Question]:
    """Every question that this game gives rise to, at most one of each kind a round."""
    rng = random.Random(game.seed)
    for moment in game.rounds:
        scene = _Scene(game, moment, words, rng)
        for kind, ask in KINDS.items():
            asked = ask(scene)
            if asked is None:
                continue
            prompt = f"{asked.record}\n{words.questions[kind].format(name=asked.name)}"
            label = asked.label or asked.answer
            yield Question(kind, words.instructions[kind], prompt, asked.answer, label, game.seed, moment.number)


@dataclass(frozen=True)
class _Asked:
    """The record to read, the answer, and the name that the question mentions, if it does."""

    record: str
    answer: str
    name: str = ""
    label: str = ""


@dataclass(frozen=True)
class _Scene:
    """One round of a game and the language to tell it in."""

    game: Game
    moment: Round
    words: Phrases
    rng: random.Random

    def player(self, number: int) -> str:
        return self.words.player.format(number)

    def checks(self) -> str:
        """The seer's checks in any order, so that their place tells nothing."""
        results = [
            (self.words.checked_werewolf if is_werewolf else self.words.checked_good).format(self.player(player))
            for player, is_werewolf in self.moment.checks.items()
        ]
        self.rng.shuffle(results)
        return self.words.checks.format(self.words.comma.join(results))

    def some_speeches(self) -> list[Speech]:
        """A few of the day's speeches in their order; none when there were fewer."""
        if len(self.moment.speeches) < QUOTED_SPEECHES:
            return []
        return sorted(self.rng.sample(self.moment.speeches, QUOTED_SPEECHES), key=lambda speech: speech.speaker)

    def quotes(self, speeches: list[Speech]) -> str:
        return "\n".join(self.quote(speech) for speech in speeches)

    def quote(self, speech: Speech) -> str:
        said = []
        if speech.claim is not None:
            said.append(self.rng.choice(self.words.claims).format(self.words.roles[speech.claim]))
        said.append(self.rng.choice(self.words.suspicions).format(self.player(speech.suspect)))
        return self.words.quote.format(self.player(speech.speaker), self.words.space.join(said))


def _check(scene: _Scene) -> _Asked | None:
    """The one werewolf the seer has found, with somebody's suspicion beside it to lead astray."""
    found = [player for player, is_werewolf in scene.moment.checks.items() if is_werewolf]
    if len(found) != 1 or not scene.moment.speeches:
        return None
    beside = scene.quote(scene.rng.choice(scene.moment.speeches))
    return _Asked(f"{scene.checks()}\n{beside}", scene.player(found[0]))


def _suspect(scene: _Scene) -> _Asked | None:
    """Whom one of the speakers suspects."""
    speeches = scene.some_speeches()
    if not speeches:
        return None
    asked = scene.rng.choice(speeches)
    return _Asked(scene.quotes(speeches), scene.player(asked.suspect), name=scene.player(asked.speaker))


def _role(scene: _Scene) -> _Asked | None:
    """Which of the speakers claims a role that no other of them claims."""
    speeches = scene.some_speeches()
    claims = [(speech.claim, speech.speaker) for speech in speeches if speech.claim is not None]
    roles = [role for role, _ in claims]
    unique = [(role, speaker) for role, speaker in claims if roles.count(role) == 1]
    if not unique:
        return None
    role, speaker = scene.rng.choice(unique)
    return _Asked(scene.quotes(speeches), scene.player(speaker), name=scene.words.roles[role])


def _claim(scene: _Scene) -> _Asked | None:
    """Whether a checked player's claim of a role of the village agrees with the check."""
    checks = scene.moment.checks
    speeches = [s for s in scene.moment.speeches if s.claim is not None and s.speaker in checks]
    if not speeches:
        return None
    asked = scene.rng.choice(speeches)
    answer = scene.words.no if checks[asked.speaker] else scene.words.yes
    return _Asked(f"{scene.checks()}\n{scene.quote(asked)}", answer)


def _night(scene: _Scene) -> _Asked:
    """Who is dead after what werewolves and witch did."""
    words, night = scene.words, scene.moment.night
    if night.healed:
        witch = words.heal.format(scene.player(night.attacked))
    elif night.poisoned is not None:
        witch = words.poison.format(scene.player(night.poisoned))
    else:
        witch = words.witch_rests
    living = words.comma.join(str(player) for player in scene.moment.living_at_night)
    begin = words.night.format(number=scene.moment.number, living=living)
    record = words.space.join([begin, words.attack.format(scene.player(night.attacked)), witch])
    dead = [scene.player(player) for player in night.deaths]
    return _Asked(record, words.both.join(dead) or words.nobody, label="two" if len(dead) == 2 else "")


def _vote(scene: _Scene) -> _Asked | None:
    """Whom the votes send out."""
    words, votes = scene.words, scene.moment.votes
    if votes is None:
        return None
    out = voted_out(votes)
    cast = words.comma.join(words.vote.format(voter=voter, target=target) for voter, target in votes.items())
    answer = words.nobody if out is None else scene.player(out)
    return _Asked(words.votes.format(number=scene.moment.number, votes=cast), answer)


def _winner(scene: _Scene) -> _Asked:
    """Which side has won once the round is over, from the cards of the living."""
    words, roles = scene.words, scene.game.roles
    following = scene.game.rounds[scene.moment.number :]
    living = following[0].living_at_night if following else scene.game.living_at_end
    side = winner(roles[player] for player in living)
    cards = words.comma.join(words.card.format(player=player, role=words.roles[roles[player]]) for player in living)
    return _Asked(words.living.format(cards), words.nobody if side is None else words.sides[side])


KINDS: dict[str, Callable[[_Scene], _Asked | None]] = {
    "check": _check,
    "suspect": _suspect,
    "role": _role,
    "claim": _claim,
    "night": _night,
    "vote": _vote,
    "winner": _winner,
}
"""Kinds of question, roughly from easy to hard."""
