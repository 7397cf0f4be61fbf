"""The table of largest batches, for a person."""

from __future__ import annotations

from collections.abc import Sequence

from clusterctl.plan.fit import gib
from clusterctl.plan.largest import MOST
from clusterctl.runs.largest import Largest
from clusterctl.views.text_table import plain, table


def view(tables: Sequence[Largest]) -> str:
    """Rows that one GPU takes at once, for each type and each saving."""
    return "\n".join(_one(one) for one in tables)


def _one(one: Largest) -> str:
    bound = "" if one.exact else " The architecture is not known here: these are bounds from below."
    head = (
        f"{plain(one.name)}: stage {one.stage}, {plain(one.model)}, rows of {one.length} tokens.\n"
        f"Rows that one GPU takes at once, an estimate; `-`: not even one.{bound}\n"
    )
    rows = [
        (row.key + (" (here)" if row.here else ""), gib(row.gpu.usable), *(_rows(number) for number in row.rows))
        for row in one.rows
    ]
    columns = (f"{name}>" for name in one.columns)
    note = "All but the first have gradient checkpointing; offload is ZeRO-3 with everything in host memory.\n"
    return f"{head}\n{table(('GPU', 'GIB>', *columns), rows)}\n{note}"


def _rows(number: int) -> str:
    return "-" if not number else f"{MOST} or more" if number >= MOST else str(number)
