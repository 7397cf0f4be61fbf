"""What a person sees of what goes and what stays."""

from __future__ import annotations

from collections.abc import Sequence

from clusterctl.runs.prune import Pruning, Removal
from clusterctl.views.text_table import plain


def view(planned: Pruning, *, gone: bool) -> str:
    """A line for each thing that goes, the reasons for what stays, and the sum."""
    lines = [f"{size(one.size):>10}  {one.kind}  {one.path}" for one in planned.removals]
    lines += [f"{'kept':>10}  {one.run_id}: {one.why}" for one in planned.kept]
    return "".join(f"{plain(line)}\n" for line in [*lines, _sum(planned.removals, gone=gone)])


def done(gone: Sequence[Removal]) -> str:
    """The sum alone, for whoever has seen the list."""
    return _sum(gone, gone=True) + "\n"


def _sum(removals: Sequence[Removal], *, gone: bool) -> str:
    if not removals:
        return "nothing to remove" if not gone else "nothing was removed"
    return f"{size(sum(one.size for one in removals))} {'removed' if gone else 'would be freed'}"


def size(count: int) -> str:
    """Bytes in the largest unit that leaves a number above one."""
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
