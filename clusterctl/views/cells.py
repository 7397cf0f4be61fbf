"""Cells and tables of views in rich; ``text_table`` has those for what must be there at once."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from clusterctl.views import text_table


def table(*columns: str) -> Table:
    """A table without lines. A column whose name ends in '>' holds numbers and stands to the right."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        name = column.removesuffix(">")
        made.add_column(name, justify="right" if name != column else "left", no_wrap=name != column)
    return made


def plain(text: str, style: str = "") -> Text:
    """Text from outside as it is: no markup in it, no control character reaches the terminal."""
    return Text(text_table.plain(text), style=style)


def gib(size: int | None) -> str:
    """Bytes in GiB; '-' where they are not known."""
    return "-" if size is None else f"{size / 1024**3:.1f}"
