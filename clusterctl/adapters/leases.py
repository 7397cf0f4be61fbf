"""GPU leases and the waiting line of this machine, shared by all its users.

A lease is a kernel lock (flock) on a file named as the GPU's UUID. Whoever inherits the open file holds the lease
too: it ends with the last process of the job, by itself, however that process ends. A place in the line is a
locked file too, so that the place of a dead process counts for nothing; and so is a holder's signature, from which
others can read whose a card is.

The folder belongs to nobody (mode 1777, as /tmp), so nothing in it is trusted: files are opened for reading only,
never through a link, and only their locks count. They carry the sticky bit, which tells systemd-tmpfiles(8) to
leave them alone when it clears old files out of /tmp.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import stat
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusterctl.adapters.process import user_name
from clusterctl.errors import Unavailable
from clusterctl.hardware import Lease

_TICKET = "ticket-"
_SIGNATURE = "held-"
_LINE_TRIES = 20
"""Times 50 ms: how long to wait for others who just look at the line. It takes them some milliseconds."""
_MAX_CLAIM = 65536
"""Bytes read of another user's ticket or signature."""

_MAX_HOLDER = 100
"""Characters of what a holder calls itself: it goes into other users' logs and terminals."""


def lease_dir() -> Path:
    """The folder of the leases: one for all users, or they would not see each other's."""
    return Path(os.environ.get("CLUSTERCTL_LEASE_DIR") or "/tmp/clusterctl-leases")  # noqa: S108


def holders() -> tuple[Lease, ...]:
    """Who holds which GPUs of this machine, as far as it is signed. Nothing where there never was a lease."""
    if not lease_dir().is_dir():
        return ()
    try:
        leases = Leases(lease_dir())
    except Unavailable:
        return ()
    try:
        return tuple(leases.signed())
    finally:
        leases.close()


@dataclass(frozen=True)
class Ticket:
    """A place in the line, held as long as ``fd`` is open."""

    number: int
    fd: int


class Leases:
    """The lease folder, opened once so that nobody can exchange it under us.

    Raises:
        Unavailable: it cannot be made, or is something else than a folder for all.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._complaining():
            self._dir = _open_shared_dir(path)

    def close(self) -> None:
        """Leave. Leases and tickets live on with their own descriptors."""
        os.close(self._dir)

    @contextlib.contextmanager
    def line(self) -> Iterator[bool]:
        """The right to look at the line and to change it, or False when others keep it too long.

        Raises:
            Unavailable: the folder is damaged.
        """
        fd = self._open("line")
        try:
            yield _lock(fd, fcntl.LOCK_EX, tries=_LINE_TRIES)
        finally:
            os.close(fd)

    def lease(self, uuid: str) -> int | None:
        """Take the lease of a GPU: the descriptor that holds it, or None when somebody else has it.

        Raises:
            Unavailable: the folder is damaged.
        """
        fd = self._open(uuid)
        if _lock(fd, fcntl.LOCK_EX):
            return fd
        os.close(fd)
        return None

    def draw_ticket(self, claim: Collection[str]) -> Ticket:
        """Join the end of the line with the UUIDs that one would take. Only with the line in hand.

        Raises:
            Unavailable: the folder is damaged.
        """
        number = 1 + max(self._numbers(), default=0)
        with self._complaining():
            name = f"{_TICKET}{number:08d}"
            fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644, dir_fd=self._dir)
            _lock(fd, fcntl.LOCK_EX)
            os.write(fd, json.dumps(sorted(claim)).encode())
            os.fchmod(fd, 0o1644)
        return Ticket(number, fd)

    def give_back(self, ticket: Ticket) -> None:
        """Leave the line."""
        with contextlib.suppress(OSError):
            os.unlink(f"{_TICKET}{ticket.number:08d}", dir_fd=self._dir)
        os.close(ticket.fd)

    def claims_ahead(self, ticket: Ticket) -> list[frozenset[str]]:
        """What those in the line before this ticket would take. Only with the line in hand."""
        claims = (self._claim(number) for number in self._numbers() if number < ticket.number)
        return [claim for claim in claims if claim is not None]

    def sign(self, holder: str, uuids: Collection[str]) -> int:
        """Say who holds these leases: for all to see as long as the descriptor, or one inherited from it, is open.

        Only with the line in hand, as two may not clear up at once.

        Raises:
            Unavailable: the folder is damaged, or full.
        """
        for old in self._signatures():
            self._read_living(old, clear=True)
        with self._complaining():
            name = f"{_SIGNATURE}{secrets.token_hex(8)}"
            fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644, dir_fd=self._dir)
            _lock(fd, fcntl.LOCK_EX, tries=_LINE_TRIES)
            os.write(fd, json.dumps({"holder": holder, "uuids": sorted(uuids)}).encode())
            os.fchmod(fd, 0o1644)
        return fd

    def signed(self) -> Iterator[Lease]:
        """The leases that living jobs have signed. The user is certain, the rest is what he says of himself."""
        for name in self._signatures():
            match self._read_living(name):
                case ({"uuids": list(uuids), "holder": str(said)}, file):
                    holder = "".join(c if c.isprintable() else "?" for c in said[:_MAX_HOLDER])
                    yield from (Lease(str(uuid), user_name(file.st_uid), holder, file.st_mtime) for uuid in uuids)

    def _signatures(self) -> list[str]:
        return sorted(entry.name for entry in os.scandir(self._dir) if entry.name.startswith(_SIGNATURE))

    def _claim(self, number: int) -> frozenset[str] | None:
        """The UUIDs on a living ticket."""
        found = self._read_living(f"{_TICKET}{number:08d}", clear=True)
        return frozenset(map(str, found[0])) if found and isinstance(found[0], list) else None

    def _read_living(self, name: str, *, clear: bool = False) -> tuple[Any, os.stat_result] | None:
        """What a locked file holds. One that nobody has locked any more is cleared away, where we may."""
        try:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=self._dir)
        except OSError:
            return None
        try:
            if _lock(fd, fcntl.LOCK_SH):
                if clear:
                    with contextlib.suppress(OSError):
                        os.unlink(name, dir_fd=self._dir)
                return None
            return json.loads(os.read(fd, _MAX_CLAIM)), os.fstat(fd)
        except (OSError, ValueError):
            return None
        finally:
            os.close(fd)

    def _numbers(self) -> list[int]:
        names = (entry.name.removeprefix(_TICKET) for entry in os.scandir(self._dir))
        return sorted(int(name) for name in names if name.isdecimal())

    def _open(self, name: str) -> int:
        """Open a lock file of the folder; the first user of a name makes it."""
        with self._complaining():
            if "/" in name:
                raise OSError(f"{name!r} is no name for a lease")
            while True:
                try:
                    # Not O_CREAT at once: fs.protected_regular forbids it on other users' files.
                    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=self._dir)
                except FileNotFoundError:
                    with contextlib.suppress(FileExistsError):
                        self._create(name)
                    continue
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    os.close(fd)
                    raise OSError(f"{name} is not a file")
                return fd

    def _create(self, name: str) -> None:
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644, dir_fd=self._dir)
        os.fchmod(fd, 0o1644)
        os.close(fd)

    @contextlib.contextmanager
    def _complaining(self) -> Iterator[None]:
        try:
            yield
        except OSError as e:
            raise Unavailable(
                f"GPU leases cannot be kept in {self.path}: {e.strerror or e}",
                hint="it must be a folder that all users may write to (mode 1777): ask its owner to remove it",
            ) from e


def _open_shared_dir(path: Path) -> int:
    """Open the folder, which the first user makes. It must not be a link, and all may write to it."""
    ours = False
    with contextlib.suppress(FileExistsError):
        path.mkdir()
        ours = True
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    if ours:
        os.fchmod(fd, 0o1777)
    return fd


def _lock(fd: int, kind: int, *, tries: int = 1) -> bool:
    for left in reversed(range(tries)):
        try:
            fcntl.flock(fd, kind | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if left:
                time.sleep(0.05)
    return False
