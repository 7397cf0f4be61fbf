"""What options say of the hardware, as far as this machine has to be asked."""

from __future__ import annotations

from clusterctl.errors import UsageProblem
from clusterctl.model import Resources, SchedulerName
from clusterctl.profiles import Asked, check_type

MOST = 100_000
"""GPUs of one run. Anything beyond is a slip of the keyboard."""


def of_options(
    gpu_type: str | None, gpus: int | None, gpu_ids: tuple[str, ...], mixed: bool, scheduler: SchedulerName
) -> Asked:
    """The options as they count: ``auto`` asks for nothing, and cards that are named have a type and a number.

    Raises:
        UsageProblem: a type that is not known, no GPUs, or cards by hand on Slurm.
        NoFit: cards that this machine has not, or that do not go together.
        Unavailable: the cards of this machine cannot be looked at.
    """
    word = None if gpu_type is None or gpu_type.lower() == "auto" else gpu_type.lower()
    if word:
        check_type(word)
    if gpus is not None and not 0 < gpus <= MOST:
        raise UsageProblem(
            f"--gpus {gpus} is no number of GPUs" if gpus else "--gpus 0 asks for no GPU",
            hint="without GPUs it is --profile cpu" if not gpus else "write --gpus 2",
        )
    if mixed and not gpu_ids:
        raise UsageProblem("--mixed allows cards of several types that are named", hint="add --gpu-ids 0,1,4,5")
    if not gpu_ids:
        return Asked(word, gpus)
    if scheduler == "slurm":
        raise UsageProblem(
            "--gpu-ids is for one machine without Slurm: there Slurm chooses the cards, and hides the others",
            hint="say --gpu-type and --gpus, or --scheduler local",
        )
    if gpus not in (None, len(gpu_ids)):
        raise UsageProblem(f"--gpus {gpus}, but --gpu-ids names {len(gpu_ids)}", hint="leave --gpus out")
    return Asked(_type_of(gpu_ids, word, mixed), len(gpu_ids), gpu_ids, mixed)


def _type_of(gpu_ids: tuple[str, ...], word: str | None, mixed: bool) -> str | None:
    """The type of the cards that were named; None where they differ, which was asked for."""
    from clusterctl.adapters.choose_gpus import candidates
    from clusterctl.runs.starts import this_machine
    from trainers import hardware

    wanted = Resources(gpus_per_node=len(gpu_ids), gpu_type=word, gpu_ids=gpu_ids, mixed=mixed)
    [cards, *_] = candidates(this_machine().gpus, wanted)
    kinds = {card.gpu_type for card in cards}
    kind = kinds.pop() if len(kinds) == 1 else None
    return kind if kind and hardware.find(kind) else word
