"""Paths that people type: what cannot be looked at or read is a problem in words, never a traceback."""

from __future__ import annotations

from pathlib import Path

from clusterctl.errors import UsageProblem


def user_path(text: str | Path) -> Path:
    """``text`` as an absolute path with ``~`` expanded. What it names need not exist.

    Raises:
        UsageProblem: no such user, a name that is too long, a folder on the way that may not be entered.
    """
    try:
        path = Path(text).expanduser().absolute()
    except RuntimeError as e:
        raise UsageProblem(f"{text}: there is no such home directory", hint="write the whole path") from e
    except OSError as e:
        raise UsageProblem("the working directory is gone", hint="go to another one with cd") from e
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as e:
        raise UsageProblem(f"{path}: {e.strerror}", hint="check the path and its permissions") from e
    except ValueError as e:
        raise UsageProblem(f"{str(path)!r}: {e}", hint="check the path") from e
    return path


def is_file(path: Path) -> bool:
    """Whether a file can be seen there. Never raises."""
    try:
        return path.is_file()
    except OSError:
        return False


def is_dir(path: Path) -> bool:
    """Whether a directory can be seen there. Never raises."""
    try:
        return path.is_dir()
    except OSError:
        return False


def text_of(path: Path) -> str:
    """The text of a file.

    Raises:
        UsageProblem: unreadable, or not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as e:
        raise UsageProblem(f"{path} is not UTF-8 text (byte {e.start})", hint="save it as UTF-8") from e
    except OSError as e:
        raise UsageProblem(f"{path} cannot be read: {e.strerror}", hint="check the path and its permissions") from e
