"""What a person sees of a diagnosis."""

from __future__ import annotations

from clusterctl.runs.diagnose import Diagnosis
from clusterctl.views.text_table import plain

_POLICIES = {
    "resume": "a job goes on by itself after this, as long as it makes progress",
    "retry": "a job tries again by itself after this, twice at most",
    "stop": "a job does not try again by itself after this",
}


def view(found: Diagnosis) -> str:
    """Cause, evidence and what to do, a line each."""
    sure = f" ({found.sure})" if found.sure else ""
    lines = [("run" if found.state else "log", f"{found.subject}{f': {found.state}' if found.state else ''}")]
    lines.append(("cause", f"{found.title}{sure}"))
    if found.file:
        lines.append(("where", f"{found.file}:{found.line}" if found.line else str(found.file)))
    if found.quote:
        lines.append(("says", found.quote))
    if found.remedy:
        lines.append(("do", found.remedy))
    if found.policy:
        lines.append(("then", _POLICIES[found.policy]))
    return "".join(f"{name:6} {plain(text)}\n" for name, text in lines)
