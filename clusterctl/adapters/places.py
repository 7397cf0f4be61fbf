"""The limit of a sweep on a machine without Slurm: so many places, each a kernel lock on a file.

A lock ends with the last process that holds its file open, however that ends: nothing has to be tidied up.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from clusterctl.errors import Unavailable


def take(folder: Path, count: int) -> int | None:
    """A descriptor that holds one of ``count`` places as long as it is open; None when all are taken.

    Raises:
        Unavailable: the files cannot be made, or the file system knows no locks.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            place = os.open(folder / str(number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as e:
                os.close(place)
                if not isinstance(e, BlockingIOError):
                    raise
            else:
                return place
    except OSError as e:
        raise Unavailable(
            f"the places of the sweep cannot be kept in {folder}: {e.strerror}", hint="leave out --parallel"
        ) from e
    return None
