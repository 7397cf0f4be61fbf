"""The Typer app: every command with its examples. Importing it loads nothing but typer and small modules."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated

import typer

COMMANDS = (
    "plan", "submit", "test", "status", "report", "compare", "tail", "cancel", "resume", "run",
    "diagnose", "archive", "prune", "doctor", "gpus", "init",
)  # fmt: skip
"""Each is a function in the module of its name, which also holds its ``EXAMPLES``."""


def make_app(only: str = "") -> typer.Typer:
    """The whole app, or as much of it as the command ``only`` needs: to build the others takes time and modules."""
    app = typer.Typer(
        name="clusterctl",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        help="Plan, submit, watch and resume language-model fine-tuning on Slurm or one GPU server.",
    )
    app.callback()(_options)
    for name in [only] if only in COMMANDS else COMMANDS:
        module = import_module(f"clusterctl.commands.{name}")
        function = getattr(module, name)
        # \b keeps the examples' lines as they are.
        app.command(name, help=f"{function.__doc__}\n\n\b{module.EXAMPLES}")(function)
    if only not in COMMANDS:
        from clusterctl.commands import catalog

        app.add_typer(catalog.group("recipes"), name="recipes")
        app.add_typer(catalog.group("profiles"), name="profiles")
    return app


def _options(
    version: Annotated[bool, typer.Option("--version", "-V", help="Show the version.")] = False,
) -> None:
    if version:
        from clusterctl import __version__
        from clusterctl.output import show_line

        show_line(f"clusterctl {__version__}")
        raise typer.Exit
