"""Rows as the model gets them, with what is learnt marked: in [[brackets]], on a terminal also in colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

_STYLES = {
    "trained": "bold green",
    "masked": "bold green",
    "chosen": "bold green",
    "good": "bold green",
    "rejected": "bold red",
    "bad": "bold red",
    "column": "dim",
}
_MARKS = {
    "trained": "",
    "masked": "",
    "chosen": "\nchosen: ",
    "rejected": "\nrejected: ",
    "good": "\ngood: ",
    "bad": "\nbad: ",
}
"""What stands in front of the brackets."""


def lines(shown: Mapping[str, Any]) -> list[Any]:
    """The numbers of the rows, then some of them."""
    parts: list[Any] = []
    if "samples" in shown:
        parts.append(_numbers(shown))
        for number, sample in enumerate(shown["samples"], start=1):
            parts += ["", f"--- {shown['unit'].removesuffix('s')} {number}", _sample(sample)]
    return [*parts, *(f"note: {note}" for note in shown["notes"])]


def _numbers(shown: Mapping[str, Any]) -> str:
    rows, counts, tokens = shown["rows"], shown["counts"], shown["tokens"]
    head = "a stream" if rows is None else f"{rows} {shown['unit']}"
    learnt = f"{shown['learnt']} of {tokens} tokens learnt ({shown['learnt'] / max(tokens, 1):.0%})"
    facts = [head, f"longest {shown['longest']} tokens", *([learnt] if shown["learnt"] else [])]
    whole = (counts.get("packed") or rows or 0) + counts.get("dropped", 0)
    for name, words in (("truncated", "cut at data.max_length"), ("dropped", "left out")):
        if whole and name in counts:
            facts.append(f"{counts[name]} of {whole} rows {words} ({counts[name] / whole:.0%})")
    if documents := counts.get("documents"):
        facts.append(f"{documents} documents, {counts['cut']} of them in several pieces, {counts['skipped']} empty")
    if held_out := counts.get("held_out"):
        facts.append(f"{held_out} rows held out")
    return "\n".join(facts)


def _sample(pieces: Sequence[Sequence[str]]) -> Text:
    """A row as text. What is learnt stands in [[brackets]], on a terminal also in colour."""
    text = Text()
    for kind, words in pieces:
        if kind == "border":
            text.append("\n=== the next document, which does not see the one above ===\n", style="dim")
        elif kind == "column":
            text.append(f"\n[{words}]", style="dim")
        elif kind == "context":
            text.append(words)
        else:
            text.append(f"{_MARKS[kind]}[[{words}]]", style=_STYLES[kind])
    text.rstrip()
    return text
