"""What a person sees of a diagnosis."""

from __future__ import annotations

from clusterctl.runs.diagnose import Diagnosis

_POLICIES = {
    "resume": "a job goes on by itself after this, as long as it makes progress",
    "retry": "may pass: trying again twice at most is worth it",
    "stop": "it would fail again until this is mended",
}


def view(found: Diagnosis) -> str:
    """Cause, evidence and what to do, a line each."""
    sure = f" ({found.sure})" if found.sure else ""
    lines = [("run" if found.state else "log", f"{found.subject}{f': {found.state}' if found.state else ''}")]
    lines.append(("cause", f"{found.title}{sure}"))
    if found.file:
        lines.append(("where", f"{found.file}:{found.line}"))
    if found.quote:
        lines.append(("says", found.quote))
    if found.remedy:
        lines.append(("do", found.remedy))
    if found.policy:
        lines.append(("then", _POLICIES[found.policy]))
    return "".join(f"{name:6} {_plain(text)}\n" for name, text in lines)


def _plain(text: str) -> str:
    # A log may hold anything: no control character reaches the terminal.
    return "".join(c if c.isprintable() else "?" for c in text)
