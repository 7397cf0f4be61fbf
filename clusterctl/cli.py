"""The command line: the Typer app, and ``main``, the one place that catches errors and exits."""

from __future__ import annotations

import errno
import gc
import io
import os
import sys


def main() -> None:
    """Entry point of the program ``clusterctl``."""
    _make_streams_safe()
    try:
        code = _run(sys.argv[1:])
        sys.stdout.flush()
        gc.freeze()
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        # The reader (head, less) has gone; say nothing, as other programs do.
        sys.stdout = None
        code = 141
    except OSError as e:
        if e.errno != errno.ENOSPC:
            raise
        sys.stderr.write(f"error: cannot write the output: {e.strerror}\nhint:  write it to another place\n")
        # What it still holds would fail once more at the interpreter's end.
        sys.stdout = None
        code = 3
    sys.exit(code)


def _make_streams_safe() -> None:
    """Closed streams (``>&-``) become /dev/null, and a character that the output's encoding lacks a question mark."""
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def _run(argv: list[str]) -> int:
    if argv in (["--version"], ["-V"]):
        # Before typer is imported: scripts ask for the version often.
        from clusterctl import __version__

        sys.stdout.write(f"clusterctl {__version__}\n")
        return 0
    # Imports leave no garbage; looking for some meanwhile, and once more at the end, costs a tenth of a short command.
    # Commands import more when they begin, hence the threshold; what runs for long still has its garbage collected.
    gc.disable()
    gc.set_threshold(100_000)
    # pydantic would look for plugins: a file of every package that is installed, and no plugin has to do with ours.
    # Jobs inherit it, and their trainers are ours too.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    import typer

    from clusterctl import output
    from clusterctl.app import make_app
    from clusterctl.errors import ClusterctlError, UsageProblem

    app = make_app(argv[0] if argv else "")
    gc.freeze()
    gc.enable()
    as_json = "--json" in argv
    words = [word for word in argv if not word.startswith("-")]
    command = " ".join(words[: 2 if words[:1] in (["recipes"], ["profiles"]) else 1])
    try:
        answer = app(argv, standalone_mode=False)
        return answer if isinstance(answer, int) else output.show(answer, as_json=as_json)
    except ClusterctlError as e:
        return output.show_error(e, command=command, as_json=as_json)
    except typer.Exit as e:
        return e.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except typer.TyperException as e:
        known = command if not _words(e).startswith("No such command") else ""
        problem = UsageProblem(_words(e), hint=f"clusterctl {known} --help".replace("  ", " "))
        return output.show_error(problem, command=command, as_json=as_json)


def _words(error: Exception) -> str:
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    return str(message).strip().rstrip(".")
