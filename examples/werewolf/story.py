"""A whole game told from its first night to its end, for continued pre-training."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

from game import Game, Round, Side, Speech, voted_out, winner
from phrases import Phrases


def story(game: Game, words: Phrases) -> str:
    """The game as a text of paragraphs, a night or a day each. Equal games give equal texts."""
    rng = random.Random(game.seed)
    paragraphs = [words.seats.format(_cards(game, words, game.roles))]
    for moment in game.rounds:
        paragraphs.append(words.space.join(_night(moment, words)))
        paragraphs.append("\n".join(_day(moment, words, rng)))
    side = winner(game.roles[player] for player in game.living_at_end)
    end = words.living.format(_cards(game, words, game.living_at_end))
    paragraphs.append(words.space.join([end, words.end.format(words.sides[side or Side.VILLAGE])]))
    return "\n\n".join(part for part in paragraphs if part)


def _cards(game: Game, words: Phrases, players: Iterable[int]) -> str:
    listed = [words.card.format(player=player, role=words.roles[game.roles[player]]) for player in players]
    return words.comma.join(listed)


def _night(moment: Round, words: Phrases) -> Iterator[str]:
    night = moment.night

    def player(number: int) -> str:
        return words.player.format(number)

    living = words.comma.join(str(number) for number in moment.living_at_night)
    yield words.night.format(number=moment.number, living=living)
    yield words.attack.format(player(night.attacked))
    if night.healed:
        yield words.heal.format(player(night.attacked))
    elif night.poisoned is not None:
        yield words.poison.format(player(night.poisoned))
    else:
        yield words.witch_rests
    yield words.dead.format(words.both.join(player(number) for number in night.deaths) or words.nobody)


def _day(moment: Round, words: Phrases, rng: random.Random) -> Iterator[str]:
    for speech in moment.speeches:
        yield words.quote.format(words.player.format(speech.speaker), _said(speech, words, rng))
    if moment.votes is not None:
        cast = [words.vote.format(voter=voter, target=target) for voter, target in moment.votes.items()]
        out = voted_out(moment.votes)
        named = words.nobody if out is None else words.player.format(out)
        votes = words.votes.format(number=moment.number, votes=words.comma.join(cast))
        yield words.space.join([votes, words.out.format(named)])


def _said(speech: Speech, words: Phrases, rng: random.Random) -> str:
    said = [] if speech.claim is None else [rng.choice(words.claims).format(words.roles[speech.claim])]
    said.append(rng.choice(words.suspicions).format(words.player.format(speech.suspect)))
    return words.space.join(said)
