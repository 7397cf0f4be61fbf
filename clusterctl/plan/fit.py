"""Whether an estimate fits a card and its node, in the words that a person reads. Pure."""

from __future__ import annotations

from clusterctl.plan.estimates import TIGHT, Fit, Memory, Verdict

GIB = 2**30


def verdict(
    memory: Memory | None, usable: int | None, card_name: str, *, host_usable: int | None = None, processes: int = 1
) -> Verdict:
    """Whether a run fits.

    Args:
        memory: the estimate; None where nothing is known of the model.
        usable: bytes that one card can be filled with; None where the card is not known.
        card_name: what people call it, with its article in mind: 'A40'.
        host_usable: bytes of memory of a node that the job gets; None: not looked at. Told where they are too few.
        processes: GPUs of the run, to say that the number is that of each.
    """
    if memory is None:
        return Verdict(Fit.UNKNOWN, "the model is not known here: memory not estimated")
    needs, each = memory.total, " on each of its GPUs" if processes > 1 else ""
    why = f"needs {_bound(memory)}{gib(needs)} GiB{each}"
    card = article(card_name)
    why += f"; what {card} has is not known" if usable is None else f", {card} has {gib(usable)}"
    here = _compared(memory, needs, usable)
    if host_usable is None:
        return Verdict(here, why, needs, usable)
    there = _compared(memory, memory.host_total, host_usable)
    if there is not Fit.NOT and memory.host_total <= host_usable:
        return Verdict(here, why, needs, usable)
    why += f"; and {gib(memory.host_total)} GiB of the node's memory, the job gets {gib(host_usable)}"
    return Verdict(there, why, needs, usable, memory.host_total, host_usable)


def on_host(memory: Memory | None, usable: int | None) -> Verdict:
    """Whether a run without a GPU fits the memory that its job gets of the node; None: nobody bounds it."""
    if memory is None:
        return verdict(None, None, "")
    needs = memory.host_total
    why = f"needs {_bound(memory)}{gib(needs)} GiB of the node's memory"
    if usable is None:
        return Verdict(Fit.UNKNOWN, f"{why}, which the profile does not bound", needs)
    return Verdict(_compared(memory, needs, usable), f"{why}, the job gets {gib(usable)}", needs, usable)


def _is_bound(memory: Memory) -> bool:
    return not memory.exact and memory.measured_in is None


def _bound(memory: Memory) -> str:
    return "at most " if _is_bound(memory) else "about " if memory.rough and memory.measured_in is None else ""


def _compared(memory: Memory, needs: int, has: int | None) -> Fit:
    """What is more than there is does not fit; a bound that is more says nothing."""
    if has is None or (needs > has and _is_bound(memory)):
        return Fit.UNKNOWN
    if needs > has:
        return Fit.NOT
    return Fit.TIGHT if needs > TIGHT * has else Fit.FITS


def gib(size: int) -> str:
    """Bytes as GiB with one digit behind the point, without the unit."""
    return f"{size / GIB:.1f}"


def article(card_name: str) -> str:
    """'an A40', 'a V100': by the sound of the first letter, as these names are spelled out."""
    return f"{'an' if card_name[:1].upper() in set('AEFHILMNORSX8') else 'a'} {card_name}"
