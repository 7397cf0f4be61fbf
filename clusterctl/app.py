"""The Typer app: every command with its examples. Importing it loads nothing but typer and small modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from clusterctl.commands import cancel, catalog, gpus, resume, run, status, submit, tail, test

app = typer.Typer(
    name="clusterctl",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Plan, submit, watch and resume language-model fine-tuning on Slurm or one GPU server.",
)


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", "-V", help="Show the version.")] = False,
) -> None:
    if version:
        from clusterctl import __version__
        from clusterctl.output import show_line

        show_line(f"clusterctl {__version__}")
        raise typer.Exit


def _command(function: Callable[..., Any], examples: str) -> None:
    # \b keeps the examples' lines as they are.
    text = f"{function.__doc__}\n\n\b{examples}"
    app.command(function.__name__, help=text)(function)


_command(submit.submit, submit.EXAMPLES)
_command(test.test, test.EXAMPLES)
_command(status.status, status.EXAMPLES)
_command(tail.tail, tail.EXAMPLES)
_command(cancel.cancel, cancel.EXAMPLES)
_command(resume.resume, resume.EXAMPLES)
_command(run.run, run.EXAMPLES)
_command(gpus.gpus, gpus.EXAMPLES)
app.add_typer(catalog.group("recipes"), name="recipes")
app.add_typer(catalog.group("profiles"), name="profiles")
