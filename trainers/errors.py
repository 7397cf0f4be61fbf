"""What can go wrong for a user of the trainer, with the exit code of the process.

    TrainerError              exit
     ├ InputProblem             2   run.yaml, a data file, a model or an adapter is wrong; the same on every rank
     └ RunProblem               1   training itself cannot go on: nothing learns, NaN, disk full, wrong machine

Caught once, in ``trainers.__main__``. Any other exception is a bug and keeps its traceback.
"""

from __future__ import annotations


class TrainerError(Exception):
    """What went wrong, in the first line of the message, and one line of what to do about it."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InputProblem(TrainerError):
    """What the user gave us cannot be used. Every rank finds the same, so rank 0 alone says it."""

    exit_code = 2


class RunProblem(TrainerError):
    """The input is fine, but this run cannot go on."""
