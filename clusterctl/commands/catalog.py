"""clusterctl recipes and clusterctl profiles: list, show, copy; recipes also: explain.

Without ``from __future__ import annotations``: typer could not look up annotations made inside a function.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from clusterctl import assets
from clusterctl.commands import explain
from clusterctl.commands.options import Json
from clusterctl.errors import UsageProblem
from clusterctl.paths import text_of
from clusterctl.result import Result

_HELP = {
    "recipes": "List, show, copy and explain recipes.",
    "profiles": "List, show and copy profiles.",
    "job_templates": "List, show and copy job templates.",
}


def group(kind: assets.Kind) -> typer.Typer:
    """The sub-commands for one kind of asset."""
    singular = kind.removesuffix("s")
    app = typer.Typer(no_args_is_help=True, help=_HELP[kind])

    def names(incomplete: str) -> list[str]:
        return [asset.name for asset in assets.listing(kind) if asset.name.startswith(incomplete)]

    name = Annotated[str, typer.Argument(metavar=singular.upper(), help="Its name, or a path.", autocompletion=names)]

    def list_(json: Json = False) -> Result:
        found = assets.listing(kind)
        return Result(f"{kind} list", found, lambda: _table(kind, found))

    def show(name: name, json: Json = False) -> Result:
        asset = assets.find(kind, str(name))
        text = text_of(asset.path)
        return Result(
            f"{kind} show", {"asset": asset, "text": text}, lambda: f"# {asset.path} ({asset.origin})\n{text}"
        )

    def copy(
        name: name,
        to: Annotated[
            Path | None, typer.Argument(help=f"Where to; default: ./{kind}/, which is searched first.")
        ] = None,
        json: Json = False,
    ) -> Result:
        target = _copy(kind, assets.find(kind, str(name)), to)
        return Result(f"{kind} copy", {"path": target}, lambda: f"copied to {target}: edit it there\n")

    commands: list[tuple[str, Callable[..., Result], str]] = [
        ("list", list_, f"All {kind}: what they are for, where they come from and what they hide."),
        ("show", show, f"Print a {singular}."),
        ("copy", copy, f"Copy a {singular}, to edit it."),
    ]
    for word, function, text in commands:
        app.command(word, help=text)(function)
    if kind == "recipes":
        app.command("explain", help=f"{explain.explain.__doc__}\n\n\b{explain.EXAMPLES}")(explain.explain)
    return app


def _copy(kind: assets.Kind, asset: assets.Asset, to: Path | None) -> Path:
    target = to or Path(kind)
    if target.suffix != ".yaml":
        target = target / asset.path.name
    text = text_of(asset.path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("x", encoding="utf-8") as f:
            f.write(text)
    except FileExistsError as e:
        raise UsageProblem(f"{target} exists", hint="name another place: the file there is not overwritten") from e
    except OSError as e:
        raise UsageProblem(f"cannot write {target}: {e.strerror}", hint="name another place") from e
    return target


def _table(kind: assets.Kind, found: list[assets.Asset]) -> object:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in (kind.removesuffix("s").upper(), "WHAT", "FROM"):
        table.add_column(heading, overflow="fold")
    for asset in found:
        hides = f", hides {len(asset.shadows)}" if asset.shadows else ""
        table.add_row(asset.name, _description(asset), f"{asset.origin}{hides}")
    return table


def _description(asset: assets.Asset) -> str:
    from clusterctl import yaml_text

    try:
        return str(yaml_text.read(asset.path).values.get("description") or "")
    except UsageProblem as e:
        return f"cannot be used: {e.message}"
