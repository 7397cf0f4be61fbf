"""YAML as people mean it: line numbers for messages, no duplicate keys, no sexagesimal numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from clusterctl.errors import UsageProblem
from clusterctl.paths import text_of


class _Loader(yaml.SafeLoader):
    """YAML 1.2's numbers: ``12:00:00`` stays text (1.1 reads it as 43200) and ``1e-4`` is a number."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as yaml wants it
        first: [(tag, regexp) for tag, regexp in resolvers if not tag.endswith((":int", ":float", ":timestamp"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_INT = ("tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F]+)$"), list("-+0123456789"))
_FLOAT = (
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:(?:[0-9][0-9_]*)?\.[0-9]+(?:[eE][-+]?[0-9]+)?|[0-9]+\.(?:[eE][-+]?[0-9]+)?"
               r"|[0-9]+[eE][-+]?[0-9]+|\.(?:inf|nan))$"),
    list("-+.0123456789"),
)  # fmt: skip
_Loader.add_implicit_resolver(*_INT)
_Loader.add_implicit_resolver(*_FLOAT)


_BROKEN = (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError)
"""What PyYAML raises for bad text; the last four for values such as ``!!bool x`` and for deep nesting."""


@dataclass(frozen=True)
class Document:
    """A mapping read from a file, with the line of every key by its dotted path."""

    path: Path
    values: Mapping[str, Any]
    lines: Mapping[str, int]

    def where(self, dotted: str) -> str:
        """``file:line`` of a key, or of the nearest enclosing one that the file holds."""
        parts = dotted.split(".")
        while parts:
            if (line := self.lines.get(".".join(parts))) is not None:
                return f"{self.path}:{line}"
            parts.pop()
        return str(self.path)


def read(path: Path) -> Document:
    """Read a file that holds one mapping.

    Raises:
        UsageProblem: unreadable, not YAML, not a mapping, or a key given twice; with file and line.
    """
    text = text_of(path)
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return Document(path, {}, {})
        if not isinstance(node, yaml.MappingNode):
            raise UsageProblem(
                f"{path}:1 holds no `key: value` pairs", hint="start with a key, for example `stage: sft`"
            )
        lines: dict[str, int] = {}
        _note_lines(node, "", lines, path)
        # From the same nodes: to read the text twice would take twice as long.
        values = loader.construct_document(node)
    except yaml.MarkedYAMLError as e:
        line = e.problem_mark.line + 1 if e.problem_mark else 1
        raise UsageProblem(f"{path}:{line} is not valid YAML: {e.problem}", hint="check indentation and quotes") from e
    except _BROKEN as e:
        raise UsageProblem(f"{path} is not valid YAML: {str(e).splitlines()[0]}", hint="check the file") from e
    return Document(path, values, lines)


def scalar(text: str) -> Any:
    """The value that ``text`` has in a YAML file: what ``--set key=value`` means by value."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506
    except _BROKEN:
        return text


class _Dumper(yaml.SafeDumper):
    """Text with unusual white space in double quotes: elsewhere PyYAML turns NEL or U+2028 into blanks.

    Text that our loader would read as a number is quoted too: 1e100 is text to PyYAML.
    """


_Dumper.add_implicit_resolver(*_INT)
_Dumper.add_implicit_resolver(*_FLOAT)


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    usual = all(character.isprintable() or character == " " for character in text)
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if usual else '"')


_Dumper.add_representer(str, _represent_text)


def dump(values: Mapping[str, Any]) -> str:
    """YAML text in the given order of keys."""
    return yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def _note_lines(node: yaml.MappingNode, prefix: str, lines: dict[str, int], path: Path) -> None:
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise UsageProblem(f"{path}:{key.start_mark.line + 1} has a key that is not plain text", hint="use a word")
        dotted = f"{prefix}{key.value}"
        line = key.start_mark.line + 1
        if dotted in lines:
            raise UsageProblem(
                f"{path}:{line} gives {dotted!r} again, first on line {lines[dotted]}",
                hint="keep one of the two",
            )
        lines[dotted] = line
        if isinstance(value, yaml.MappingNode):
            _note_lines(value, f"{dotted}.", lines, path)
