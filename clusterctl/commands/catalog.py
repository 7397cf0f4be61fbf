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

_BY_NAME = "the name says it"
_DERIVED = (
    "TYPE-[NODESx]GPUS[-STRATEGY[-offload]] needs no file: a800-1, a40-4-zero3-offload, gpu-2 (of any type);"
    " `profiles show a800-2x4-zero3` has the strategies"
)
_RECKONED = """\
# Reckoned when it is used, from card, node and model; written here, they stand:
# dtype: bf16             # bf16, fp16, fp32
# cpus_per_task: 8        # CPUs of a node's part of the job
# mem: 64G                # memory of a node
# time: 1-00:00:00
# set: {optim.per_device_train_batch_size: 4, model.gradient_checkpointing: true}
"""


def group(kind: assets.Kind) -> typer.Typer:
    """The sub-commands for one kind of asset."""
    singular = kind.removesuffix("s")
    app = typer.Typer(no_args_is_help=True, help=_HELP[kind])

    def names(incomplete: str) -> list[str]:
        from clusterctl.commands import options

        if kind == "profiles":
            return options.profile_names(incomplete)
        return [asset.name for asset in assets.listing(kind) if asset.name.startswith(incomplete)]

    name = Annotated[str, typer.Argument(metavar=singular.upper(), help="Its name, or a path.", autocompletion=names)]

    def list_(json: Json = False) -> Result:
        found = assets.listing(kind)
        return Result(f"{kind} list", found, lambda: _table(kind, found))

    def show(name: name, json: Json = False) -> Result:
        asset, text = _find(kind, str(name))
        found = f"{asset.path} ({asset.origin})" if asset.origin != _BY_NAME else f"{asset.name}: {_BY_NAME}"
        return Result(f"{kind} show", {"asset": asset, "text": text}, lambda: f"# {found}\n{text}")

    def copy(
        name: name,
        to: Annotated[
            Path | None, typer.Argument(help=f"Where to; default: ./{kind}/, which is searched first.")
        ] = None,
        json: Json = False,
    ) -> Result:
        target = _copy(kind, *_find(kind, str(name)), to)
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


def _find(kind: assets.Kind, name: str) -> tuple[assets.Asset, str]:
    """An asset and its text; for a profile without a file the text that says the same."""
    if kind != "profiles":
        asset = assets.find(kind, name)
        return asset, text_of(asset.path)
    from clusterctl import profiles, yaml_text

    source = profiles.find(name)
    if source.path is not None:
        asset = assets.find(kind, name)
        return asset, text_of(asset.path)
    text = yaml_text.dump(dict(source.values)) + _RECKONED
    return assets.Asset(source.name, Path(f"{source.name}.yaml"), _BY_NAME), text


def _copy(kind: assets.Kind, asset: assets.Asset, text: str, to: Path | None) -> Path:
    target = to or Path(kind)
    if target.suffix != ".yaml":
        target = target / asset.path.name
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
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in (kind.removesuffix("s").upper(), "WHAT", "FROM"):
        table.add_column(heading, overflow="fold")
    for asset in found:
        hides = f", hides {len(asset.shadows)}" if asset.shadows else ""
        table.add_row(asset.name, _description(asset), f"{asset.origin}{hides}")
    return Group(table, "", Text(_DERIVED)) if kind == "profiles" else table


def _description(asset: assets.Asset) -> str:
    from clusterctl import yaml_text

    try:
        return str(yaml_text.read(asset.path).values.get("description") or "")
    except UsageProblem as e:
        return f"cannot be used: {e.message}"
