"""The only module that prints: tables and lines for people, one versioned JSON envelope for programs."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clusterctl.errors import ClusterctlError
from clusterctl.result import Event, Result, Stream, Watch

if TYPE_CHECKING:
    from rich.console import Console

SCHEMA = 1
"""Version of the envelope ``{"schema", "command", "ok", "data", "error"}``: docs/exit-codes-and-json.md."""


def show(answer: Result | Stream | Watch | None, *, as_json: bool) -> int:
    """Print an answer and return the exit code of the process."""
    if isinstance(answer, (Result, Stream)):
        for note in answer.notes:
            show_line(f"note:  {_lines(note)}", to_stderr=True)
    match answer:
        case None:
            return 0
        case Result():
            if as_json:
                _envelope(answer.command, answer.data, ok=answer.exit_code == 0)
            else:
                _view(answer.view())
            return answer.exit_code
        case Stream():
            return _stream(answer, as_json=as_json)
        case Watch():
            return _watch(answer, as_json=as_json)


def show_error(error: ClusterctlError, *, command: str, as_json: bool) -> int:
    """One line of what, one line of what to do; on standard error, or as an envelope on standard output."""
    if as_json:
        words = {"type": type(error).__name__, "message": error.message, "hint": error.hint}
        _envelope(command, None, ok=False, error={**words, "exit_code": error.exit_code})
    else:
        print(f"error: {_lines(error.message)}", file=sys.stderr)
        if error.hint:
            print(f"hint:  {_lines(error.hint)}", file=sys.stderr)
    return error.exit_code


def _lines(text: str) -> str:
    """Without control characters of names and words from outside, but those that end our lines."""
    from clusterctl.views.text_table import plain

    return "\n".join(map(plain, text.split("\n")))


def show_line(text: str, *, to_stderr: bool = False) -> None:
    """A plain line."""
    print(text, file=sys.stderr if to_stderr else sys.stdout)


def can_ask() -> bool:
    """A person sits at the terminal and can be asked."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def confirm(text: str, question: str) -> bool:
    """Show the text, ask, and say whether the answer was yes. Enter alone is no."""
    clean = "".join(c if c.isprintable() or c == "\n" else "?" for c in text)
    print(f"{clean}\n{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _envelope(command: str, data: Any, *, ok: bool, error: Any = None) -> None:
    whole = {"schema": SCHEMA, "command": command, "ok": ok, "data": jsonable(data), "error": error}
    # Where the output's encoding lacks a character, JSON's \\u keeps it.
    print(json.dumps(whole, ensure_ascii=sys.stdout.encoding.lower() != "utf-8"), flush=True)


def jsonable(value: Any) -> Any:
    """Dataclasses, paths and enums as plain JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: jsonable(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [jsonable(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    return value


def _view(view: Any) -> None:
    if view is None:
        return
    if isinstance(view, str):
        # As it is: a script must reach standard output byte by byte.
        text = view
    else:
        console = _console()
        # Not printed by rich itself: where the reader has gone, it exits with 1 and not with 141.
        with console.capture() as rendered:
            console.print(view)
        text = rendered.get()
    sys.stdout.write(text)
    sys.stdout.flush()


def _console() -> Console:
    from rich.console import Console

    # Into a pipe or file nothing is cut: rich would assume 80 columns there.
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 400
    # What users and schedulers write may hold [brackets] and :colons:, which are no markup.
    return Console(width=width, highlight=False, soft_wrap=False, markup=False, emoji=False)


def _stream(stream: Stream, *, as_json: bool) -> int:
    code = 0
    try:
        for event in stream.events:
            code = event.exit_code
            if as_json:
                _envelope(stream.command, event.data, ok=code == 0)
            else:
                _event(event)
    except KeyboardInterrupt:
        if stream.on_interrupt and not as_json:
            print(f"\n{stream.on_interrupt}", file=sys.stderr)
        return 130
    return code


def _event(event: Event) -> None:
    if event.raw:
        target = sys.stderr if event.error_stream else sys.stdout
        target.write(event.raw)
        target.flush()
    if event.view is not None:
        _view(event.view())


def _watch(watch: Watch, *, as_json: bool) -> int:
    from clusterctl.adapters.keyboard import quit_key

    try:
        with quit_key() as pressed:
            if as_json or not sys.stdout.isatty():
                while True:
                    show(watch.make(), as_json=as_json)
                    if pressed(watch.every):
                        return 0
            from rich.console import Group
            from rich.live import Live
            from rich.text import Text

            with Live(console=_console(), auto_refresh=False, screen=True) as live:
                while True:
                    view = watch.make().view()
                    said = f"{time.strftime('%H:%M:%S')}, every {watch.every:.0f} s; q ends"
                    live.update(Group(Text(said, style="dim"), view), refresh=True)
                    if pressed(watch.every):
                        return 0
    except KeyboardInterrupt:
        return 0
