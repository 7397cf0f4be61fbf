"""Whether the numbers of a batch agree, and whether a step holds whole groups of answers.

Pure arithmetic, so that it is known before anything is submitted.
"""

from __future__ import annotations

from math import gcd


def batch_problem(rows: int | None, batch: int, accumulation: int, processes: int) -> str | None:
    """What does not agree where the ``rows`` of a step are given too; None when all does."""
    if rows is None or rows == batch * accumulation * processes:
        return None
    return (
        f"optim.train_batch_size {rows} is not optim.per_device_train_batch_size {batch} x gradient_accumulation_steps "
        f"{accumulation} x {processes} processes, which is {batch * accumulation * processes}: leave one of them out"
    )


def group_problem(batch: int, accumulation: int, processes: int, generations: int) -> str | None:
    """What does not come out even, with the nearest numbers that do; None when all does.

    Rewards are compared among the ``generations`` answers to one prompt, so one optimiser step, which has
    ``batch * accumulation * processes`` answers, has to hold whole groups of them.
    """
    answers = batch * accumulation * processes
    if answers % generations == 0:
        return None
    divisors = [n for n in range(2, answers + 1) if answers % n == 0]
    unit = generations // gcd(generations, batch * processes)
    steps = max(unit, round(accumulation / unit) * unit)
    ways = [f"method.num_generations {min(divisors, key=lambda n: abs(n - generations))}"] if divisors else []
    ways.append(f"optim.gradient_accumulation_steps {steps}")
    return (
        f"a step has {batch} x {accumulation} x {processes} = {answers} answers (optim.per_device_train_batch_size x "
        f"gradient_accumulation_steps x processes), no multiple of method.num_generations {generations}: "
        f"nearest are {' or '.join(ways)}"
    )
