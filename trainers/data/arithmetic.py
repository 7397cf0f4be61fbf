"""How many optimiser steps a run takes. Standard library only: plans are made with it on login nodes."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil


@dataclass(frozen=True)
class StepCount:
    """The steps of a run, as transformers' Trainer counts them."""

    rows: int
    """Rows of the training set, which is blocks where rows are packed."""
    batch: int
    """Rows a process takes at once."""
    processes: int
    accumulation: int
    per_epoch: int
    total: int
    by_steps: bool
    """Whether the total was given as a number of steps, and not as epochs."""

    @property
    def effective_batch(self) -> int:
        """Rows in one optimiser step."""
        return self.batch * self.processes * self.accumulation

    def words(self) -> str:
        """All of it in one line."""
        epochs = self.total / self.per_epoch
        return (
            f"{self.rows} rows; effective batch {self.effective_batch} = {self.batch} a device x {self.processes} "
            f"processes x {self.accumulation} accumulated; {self.per_epoch} steps an epoch x {epochs:.4g} epochs "
            f"= {self.total} steps" + (" (max_steps)" if self.by_steps else "")
        )


def count_steps(
    rows: int, batch: int, processes: int, accumulation: int, epochs: float, max_steps: int = -1
) -> StepCount:
    """Count the steps of a run over ``rows`` rows; ``max_steps`` above 0 decides, else ``epochs``.

    Each process gets the same number of batches, the last ones filled up from the front; batches that are left
    over at the end of an epoch make a step of their own, a smaller one.
    """
    batches = ceil(ceil(rows / batch) / processes)
    per_epoch = max(ceil(batches / accumulation), 1)
    total = max_steps if max_steps > 0 else ceil(epochs * per_epoch)
    return StepCount(rows, batch, processes, accumulation, per_epoch, total, max_steps > 0)
