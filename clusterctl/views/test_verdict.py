"""What a person sees of a test's verdict."""

from __future__ import annotations

from clusterctl.durations import words
from clusterctl.runs.tested import Verdict

_GIB = 1024**3


def view(verdict: Verdict, submit: str) -> str:
    """The measurements, the estimate, and the verdict as the last line, with the command for the full run."""
    lines = [f"steps        {verdict.steps}"]
    if verdict.peak_memory:
        kind = "GPU memory" if verdict.device == "cuda" else "memory of the process"
        lines.append(f"peak         {verdict.peak_memory / _GIB:.2f} GiB ({kind})")
    if verdict.seconds_per_step:
        lines.append(f"step time    {verdict.seconds_per_step:.3g} s")
    if verdict.tokens_per_second:
        lines.append(f"tokens/s     {verdict.tokens_per_second:,.0f}")
    if verdict.estimate and verdict.full_steps:
        fits = "within" if verdict.in_time else "TOO LONG FOR"
        lines.append(
            f"full run     {verdict.full_steps} steps, about {words(verdict.estimate)} (estimate), "
            f"{fits} its time limit of {words(verdict.time_limit)}"
        )
    lines.append(f"Test passed. Ready for full training: {submit}" if verdict.passed else f"Test failed. {verdict.why}")
    return "\n".join(lines) + "\n"
