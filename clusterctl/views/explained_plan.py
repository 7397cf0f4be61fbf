"""Every term behind a plan: memory of the fullest GPU and of a node, and time, each with its formula and source."""

from __future__ import annotations

from collections.abc import Sequence

from clusterctl import durations
from clusterctl.plan.estimates import Term
from clusterctl.plan.fit import gib
from clusterctl.runs.plan import Planned
from clusterctl.views.text_table import table


def terms(plan: Planned) -> str:
    """The terms as tables; what is not known says so."""
    memory, took = plan.memory, plan.duration
    parts = []
    if memory is None:
        parts.append("Memory: not estimated, the model is not known here.\n")
    else:
        kind = f"measured in {memory.measured_in}; the terms are an estimate" if memory.measured_in else "an estimate"
        bound = "; a rough one" if memory.rough else ""
        bound += "" if memory.exact else "; the architecture is not known, so it is a bound from above"
        parts.append(_terms(f"Memory of the fullest GPU: {gib(memory.total)} GiB, {kind}{bound}", memory.device))
        parts.append(_terms(f"Memory of a node: {gib(memory.host_total)} GiB, an estimate", memory.host))
    if took is None:
        parts.append("Time: not known.\n")
    else:
        rows = [(span.name, durations.words(span.seconds), span.basis) for span in took.spans]
        parts.append(f"Time: about {durations.words(took.total)}\n" + table(("SPAN", "TAKES>", "BASIS"), rows))
    return "\n".join(parts)


def _terms(title: str, found: Sequence[Term]) -> str:
    rows = [
        (term.name, gib(term.size), f"{term.formula} [{term.source}]" if term.source else term.formula)
        for term in found
    ]
    return f"{title}\n" + (table(("TERM", "GIB>", "FORMULA"), rows) if rows else "  nothing\n")
