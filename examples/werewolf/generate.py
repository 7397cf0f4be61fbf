"""Write the Werewolf data set: ``python examples/werewolf/generate.py [--seed N] [--out DIR]``.

Equal seeds give equal bytes. Prints, for each file, how well a constant answer would do.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import zip_longest
from pathlib import Path

from game import play
from phrases import CHINESE, ENGLISH, Phrases
from questions import KINDS, Question, questions
from story import story
from strategy import facts
from verdicts import preferences, prompts, ratings

TRAIN_GAMES = 1000
EVAL_GAMES = 300
VERDICT_GAMES = 400
STORY_GAMES = 40
EVAL_STORY_GAMES = 8
TRAIN_ROWS_PER_KIND = 48
EVAL_ROWS_PER_KIND = 9
TRAIN_VERDICTS_PER_KIND = 16
EVAL_VERDICTS_PER_KIND = 4
LANGUAGES = {"zh": CHINESE, "en": ENGLISH}
SMALL_TABLES = (6, 7, 8, 9)
"""One-digit players and few speakers keep prompts short."""

Row = dict[str, str]
JsonRow = dict[str, object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="another data set by the same rules (default: 0)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where the files go")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    print("| file | rows | best constant answer | best constant answer of each kind |")
    print("|---|---|---|---|")
    files = data_set(options.seed)
    for name, rows in files.items():
        write_csv(options.out / name, rows)
        print(f"| {name} | {len(rows)} | {constant_answer(rows)} | {constant_answer_by_kind(rows)} |")
    asked = {row["prompt"] for name, rows in files.items() if name.startswith("train_") for row in rows}
    for name, lines in further_stages(options.seed, asked).items():
        write_jsonl(options.out / name, lines)


def games_of(seed: int) -> tuple[range, range, range]:
    """The seeds of the games that a data set is made of: for training, held out, and for the stages after sft."""
    first = seed * (TRAIN_GAMES + EVAL_GAMES + VERDICT_GAMES)
    train = range(first, first + TRAIN_GAMES)
    held_out = range(train.stop, train.stop + EVAL_GAMES)
    return train, held_out, range(held_out.stop, held_out.stop + VERDICT_GAMES)


def data_set(seed: int) -> dict[str, list[Row]]:
    """The rows of every CSV file, by file name."""
    train_games, eval_games, _ = games_of(seed)
    files = {
        "game_strategy_and_term.csv": [
            {"prompt": prompt, "response": fact.answer} for fact in facts() for prompt in fact.prompts[:-1]
        ],
        "eval_strategy.csv": [{"prompt": fact.prompts[-1], "response": fact.answer} for fact in facts()],
    }
    for language, words in LANGUAGES.items():
        train = game_rows(train_games, words, TRAIN_ROWS_PER_KIND, without=set())
        seen = {row["prompt"] for row in train}
        files[f"train_{language}.csv"] = train
        files[f"eval_{language}.csv"] = game_rows(eval_games, words, EVAL_ROWS_PER_KIND, without=seen)
    return files


def further_stages(seed: int, asked: set[str]) -> dict[str, list[JsonRow]]:
    """The rows of every JSONL file: whole games, and right and wrong answers to questions that are not ``asked``."""
    train_games, eval_games, verdict_games = games_of(seed)
    files: dict[str, list[JsonRow]] = {}
    for begin, games, count in (("", train_games, STORY_GAMES), ("eval_", eval_games, EVAL_STORY_GAMES)):
        files[f"{begin}games.jsonl"] = [
            {"text": story(play(game), words)} for game in games[:count] for words in LANGUAGES.values()
        ]
    for begin, games, count in (
        ("", verdict_games, TRAIN_VERDICTS_PER_KIND),
        ("eval_", eval_games, EVAL_VERDICTS_PER_KIND),
    ):
        both = [game_questions(games, words, count, without=asked) for words in LANGUAGES.values()]
        in_turn = [question for turn in zip(*both, strict=True) for question in turn]
        asked = asked | {question.prompt for question in in_turn}
        rng = random.Random(games.start)
        files[f"{begin}preferences.jsonl"] = preferences(in_turn, rng)
        files[f"{begin}ratings.jsonl"] = ratings(in_turn, rng)
        files[f"{begin}prompts.jsonl"] = prompts(in_turn)
    return files


def game_rows(games: range, words: Phrases, rows_per_kind: int, without: set[str]) -> list[Row]:
    """``game_questions`` as rows of a CSV file."""
    return [as_row(question) for question in game_questions(games, words, rows_per_kind, without)]


def game_questions(games: range, words: Phrases, rows_per_kind: int, without: set[str]) -> list[Question]:
    """Equally many of every kind, one of each in turn, so that any beginning of a file is a fair mix."""
    candidates: dict[str, dict[str, Question]] = {kind: {} for kind in KINDS}
    for seed in games:
        for question in questions(play(seed, SMALL_TABLES), words):
            if question.prompt not in without:
                candidates[question.kind].setdefault(question.prompt, question)
    chosen = [balanced(of_kind.values())[:rows_per_kind] for of_kind in candidates.values()]
    rng = random.Random(games.start)
    for of_kind in chosen:
        rng.shuffle(of_kind)
    return [question for turn in zip(*chosen, strict=True) for question in turn]


def balanced(candidates: Iterable[Question]) -> list[Question]:
    """The candidates with their labels in turn, so that every beginning has all labels equally often."""
    by_label: dict[str, list[Question]] = defaultdict(list)
    for question in candidates:
        by_label[question.label].append(question)
    columns = [by_label[label] for label in sorted(by_label)]
    return [question for turn in zip_longest(*columns) for question in turn if question is not None]


def as_row(question: Question) -> Row:
    meta = {"game": question.game, "night": question.night, "kind": question.kind}
    return {
        "instruction": question.instruction,
        "prompt": question.prompt,
        "response": question.response,
        "meta": json.dumps(meta),
    }


def write_csv(path: Path, rows: list[Row]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_jsonl(path: Path, rows: list[JsonRow]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def constant_answer(rows: list[Row]) -> str:
    """The most frequent answer and its share: what a model that reads nothing can reach."""
    answer, count = Counter(row["response"] for row in rows).most_common(1)[0]
    return f"{answer}: {count / len(rows):.1%}"


def constant_answer_by_kind(rows: list[Row]) -> str:
    """The same for a model that tells the kinds of question apart and reads nothing else."""
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        if "meta" not in row:
            return "-"
        answers[json.loads(row["meta"])["kind"]][row["response"]] += 1
    return f"{sum(max(counts.values()) for counts in answers.values()) / len(rows):.1%}"


if __name__ == "__main__":
    main()
