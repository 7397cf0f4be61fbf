"""Running other programs: the one module that imports ``subprocess``."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clusterctl.errors import Unavailable


@dataclass(frozen=True)
class Finished:
    """A program that ended: its exit code and what it wrote."""

    returncode: int
    stdout: str
    stderr: str


class TimedOut(Unavailable):
    """The program did not end in time and was killed. What it had asked for may still happen."""


def run(
    argv: Sequence[str],
    *,
    timeout: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
) -> Finished:
    """Run a program to its end, never through a shell.

    A non-zero exit code is returned, not raised: callers know what it means.

    Raises:
        Unavailable: the program is not on PATH or cannot be started.
        TimedOut: it ran for more than ``timeout`` seconds.
    """
    try:
        done = subprocess.run(
            list(argv),
            capture_output=True,
            cwd=cwd,
            env=None if env is None else dict(env),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            timeout=timeout,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    except subprocess.TimeoutExpired as e:
        raise TimedOut(f"{argv[0]} did not answer within {timeout:.0f} s") from e
    except FileNotFoundError as e:
        raise Unavailable(f"{argv[0]} is not installed here (not on PATH)") from e
    except OSError as e:
        raise Unavailable(f"{argv[0]} could not be started: {e.strerror or e}") from e
    return Finished(done.returncode, done.stdout, done.stderr)


def run_in_foreground(argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], pass_fds: Collection[int] = ()) -> int:
    """Run a program on this terminal until it ends; Ctrl-C goes to it, and we wait for what it does with it.

    It inherits ``pass_fds``: a lock on such a file lives as long as the program, also when we are killed.
    """
    child = subprocess.Popen(list(argv), cwd=cwd, env=dict(env), pass_fds=tuple(pass_fds))
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:
            continue


def start_detached(
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    stdout: Path,
    stderr: Path | None = None,
    pass_fds: Sequence[int] = (),
) -> int:
    """Start a program in a session of its own, deaf to this terminal, and return its process id.

    Output is appended; standard input is empty. Of the open files it inherits ``pass_fds``, and no others.
    """
    with stdout.open("ab") as out, (stderr or stdout).open("ab") as err:
        child = subprocess.Popen(
            list(argv),
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
            pass_fds=tuple(pass_fds),
        )
    # The caller may wait for the process by its id. A Popen that thinks it runs would take the exit status first.
    child.returncode = 0
    return child.pid


def own_user() -> str:
    """The login name behind this process."""
    return user_name(os.getuid())


def user_name(uid: int) -> str:
    """The login name of a user from the password database; the number where it has no name."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
