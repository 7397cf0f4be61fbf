"""A job's wait for GPUs: its place in the machine's line, what it may take, and the words for why it waits."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection
from dataclasses import dataclass

from clusterctl.adapters.choose_gpus import candidates, choose, count, visible
from clusterctl.adapters.leases import Leases, Ticket, lease_dir
from clusterctl.errors import ClusterctlError
from clusterctl.hardware import Gpu, Pair
from clusterctl.model import Resources

_LOOK_INTERVAL = 5.0
"""Seconds between two looks by NVML when no lease changed: a look can take the driver seconds."""


@dataclass(frozen=True)
class Taken:
    """GPUs that are leased as long as one of the descriptors is open, here or in a process that inherited it."""

    gpus: tuple[Gpu, ...]
    fds: tuple[int, ...]

    def release(self) -> None:
        """Close our descriptors."""
        for fd in self.fds:
            os.close(fd)


class GpuQueue:
    """One job waiting for GPUs. First come, first served, but a later job may take what no earlier one waits for.

    ``holder`` is what others read of who holds the cards.

    Raises:
        Unavailable: leases cannot be kept on this machine.
    """

    def __init__(self, wanted: Resources, holder: str) -> None:
        self._wanted = wanted
        self._holder = holder
        self._leases = Leases(lease_dir())
        self._ticket: Ticket | None = None
        self._gpus: tuple[Gpu, ...] | None = None
        self._pairs: tuple[Pair, ...] = ()
        self._looked_at = 0.0
        self._unleased_then: frozenset[str] | None = None
        self._words = ""

    def try_to_take(self) -> Taken | str:
        """The GPUs, or in words what the job waits for. To be called again and again, once a second."""
        try:
            if self._gpus is None:
                if self._words and not self._look_is_old():
                    return self._words
                self._look()
            answer = self._try_once()
        except ClusterctlError as e:  # the driver or a card may come back
            self._gpus, self._unleased_then, self._looked_at = None, None, time.monotonic()
            answer = e.message
        if isinstance(answer, str):
            number = count(self._wanted)
            answer = self._words = f"waiting for {number} GPU{'s' if number > 1 else ''}: {answer}"
        return answer

    def leave(self) -> None:
        """Give up the place in the line. Leases that were taken stay."""
        if self._ticket is not None:
            self._leases.give_back(self._ticket)
        self._leases.close()

    def _try_once(self) -> Taken | str:
        """Lease first, then look: what NVML said before the leases changed may be out of date."""
        answer, unleased = self._lease_what_fits()
        if not self._should_look_again(answer, unleased):
            return answer
        if isinstance(answer, Taken):
            answer.release()
        self._look()
        self._unleased_then = unleased
        answer, _ = self._lease_what_fits()
        return answer

    def _lease_what_fits(self) -> tuple[Taken | str, frozenset[str]]:
        """The GPUs or the reason, and the UUIDs of the candidates that had no lease."""
        gpus = self._gpus or ()
        eligible = {gpu.uuid or "" for group in candidates(gpus, self._wanted) for gpu in group}
        with self._leases.line() as ours, contextlib.ExitStack() as unused:
            if not ours:
                return "others keep the line", self._unleased_then or frozenset()
            if self._ticket is None:
                self._ticket = self._leases.draw_ticket(eligible)
            ahead = [claim for claim in self._leases.claims_ahead(self._ticket) if claim & eligible]
            held: dict[str, int] = {}
            for uuid in eligible:
                if (fd := self._leases.lease(uuid)) is not None:
                    held[uuid] = fd
                    unused.callback(os.close, fd)
            busy = (eligible - held.keys()).union(*ahead)
            chosen = choose(gpus, busy, self._wanted, self._pairs)
            unleased = frozenset(eligible - busy)
            if isinstance(chosen, str):
                line = f", {len(ahead)} ahead in line" if ahead else ""
                return chosen + line + self._held_by(eligible - held.keys()), unleased
            uuids = [gpu.uuid or "" for gpu in chosen]
            signature = self._leases.sign(self._holder, uuids)
            return Taken(chosen, (signature, *(os.dup(held[uuid]) for uuid in uuids))), unleased

    def _held_by(self, uuids: Collection[str]) -> str:
        """Whose jobs have these cards: '; held by sft-20261122-a3f9'."""
        names = list(dict.fromkeys(lease.holder for lease in self._leases.signed() if lease.uuid in uuids))
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        return f"; held by {', '.join(names[:3])}{more}" if names else ""

    def _look(self) -> None:
        from clusterctl.adapters.nvml import machine

        seen = machine()
        self._gpus = visible(seen.gpus, os.environ.get("CUDA_VISIBLE_DEVICES"))
        self._pairs = seen.pairs
        self._looked_at = time.monotonic()

    def _look_is_old(self) -> bool:
        return time.monotonic() - self._looked_at > _LOOK_INTERVAL

    def _should_look_again(self, answer: Taken | str, unleased: frozenset[str]) -> bool:
        if self._unleased_then is None:
            self._unleased_then = unleased
        if unleased != self._unleased_then:
            return True
        return (isinstance(answer, Taken) or bool(unleased)) and self._look_is_old()
