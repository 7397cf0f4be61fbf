"""Reading our documents: code blocks, commands, tables, links. How they are meant to be written: CONTRIBUTING.md."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Command:
    """A command of a console block: its words, the exit code that it is said to have, the lines it is said to print."""

    words: tuple[str, ...]
    code: int
    output: tuple[str, ...]


@dataclass(frozen=True)
class Block:
    """A fenced block: its language and its text."""

    language: str
    text: str

    @property
    def file_name(self) -> str | None:
        """The file that a block begins with the name of, as in ``# my.yaml``."""
        match = re.match(r"# (\S+\.yaml)\n", self.text)
        return match[1] if match else None

    def commands(self) -> list[Command]:
        """What is typed behind ``$``, in order. ``echo $?`` is no command but the exit code of the one before."""
        found: list[Command] = []
        for prompt in re.split(r"^\$ ", self.text, flags=re.MULTILINE)[1:]:
            typed, *output = prompt.splitlines()
            if typed == "echo $?":
                found[-1] = Command(found[-1].words, int(output[0]), found[-1].output)
            else:
                found.append(Command(tuple(shlex.split(typed, comments=True)), 0, tuple(output)))
        return found


def blocks(path: Path) -> list[Block]:
    """The fenced blocks of a document."""
    return [Block(*match.groups()) for match in _BLOCK.finditer(path.read_text(encoding="utf-8"))]


def commands(path: Path) -> list[Command]:
    """The commands of all console blocks of a document."""
    return [command for block in blocks(path) if block.language == "console" for command in block.commands()]


def tables(path: Path, heading: str) -> list[list[list[str]]]:
    """The rows of every table whose first heading is this word, as cells."""
    found: list[list[list[str]]] = []
    inside = False
    for line in path.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            inside = False
        elif inside:
            if not set(line) <= set("|-"):
                found[-1].append(cells)
        elif cells[0] == heading:
            inside = True
            found.append([])
    return found


def links(path: Path) -> Iterator[str]:
    """The targets of links and pictures, those on the web left out."""
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if "://" not in target:
            yield target


def anchors(path: Path) -> set[str]:
    """The names that links can give to the headings of a document, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
