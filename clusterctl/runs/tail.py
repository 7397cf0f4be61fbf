"""Following a run's log: waits for a job that has not begun, goes on over requeues, ends with its state.

Logs are followed by inode and offset and opened again when they shrink or are replaced, because NFS shows
old attributes for a while.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from clusterctl.errors import NotFound
from clusterctl.model import JobState
from clusterctl.runs import find, status
from clusterctl.runs.find import Run
from clusterctl.status import Status

Stream = Literal["out", "err"]

POLL = 0.3
"""Seconds between looks at the log files."""
ASK_SLURM = 30.0
"""Seconds between questions to Slurm: sites limit pollers."""
ASK_LOCAL = 1.0
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Text:
    """Whole lines from one of the two logs."""

    stream: Stream
    text: str


@dataclass
class _Log:
    path: Path
    stream: Stream
    offset: int = 0
    inode: int = 0
    rest: bytes = b""

    def read(self) -> str:
        """What was added since the last call, in whole lines."""
        try:
            with self.path.open("rb") as f:
                info = os.fstat(f.fileno())
                if info.st_ino != self.inode or info.st_size < self.offset:
                    self.inode, self.offset, self.rest = info.st_ino, 0, b""
                f.seek(self.offset)
                new = f.read(_CHUNK)
        except OSError:
            return ""
        self.offset += len(new)
        whole, newline, rest = (self.rest + new).rpartition(b"\n")
        self.rest = rest
        return (whole + newline).decode("utf-8", errors="replace")

    def flush(self) -> str:
        """The last line, when it has no end."""
        rest, self.rest = self.rest, b""
        return rest.decode("utf-8", errors="replace")

    def skip_to_last(self, lines: int) -> None:
        """Place the next ``read`` before the last lines, reading from the end only as far as needed."""
        try:
            with self.path.open("rb") as f:
                info = os.fstat(f.fileno())
                start, seen = info.st_size, 0
                while start > 0 and seen <= lines:
                    step = min(start, 1 << 16)
                    start -= step
                    f.seek(start)
                    seen += f.read(step).count(b"\n")
                f.seek(start)
                block = f.read(info.st_size - start)
        except OSError:
            return
        # Not splitlines(), which also parts lines at the carriage returns of progress bars.
        pieces = block.split(b"\n")
        count = lines + 1 if block.endswith(b"\n") else lines
        wanted = b"\n".join(pieces[-count:]) if lines else b""
        self.inode, self.offset = info.st_ino, info.st_size - len(wanted)


def log_paths(run_dir: Path, streams: Sequence[Stream]) -> dict[Stream, Path]:
    """The log files of a run."""
    return {stream: run_dir / "logs" / f"job.{stream}" for stream in streams}


def last_lines(run: Run, lines: int, streams: Sequence[Stream]) -> list[Text]:
    """The end of each log.

    Raises:
        NotFound: nothing has been logged yet; the hint says what the run waits for.
    """
    texts: list[Text] = []
    for stream, path in log_paths(run.run_dir, streams).items():
        log = _Log(path, stream)
        log.skip_to_last(lines)
        text = "".join(iter(log.read, "")) + log.flush()
        if text:
            texts.append(Text(stream, text))
    if not texts and not any(path.exists() for path in log_paths(run.run_dir, streams).values()):
        raise _no_log(run)
    return texts


def _no_log(run: Run) -> NotFound:
    [now] = status.look([run])
    run_id = run.record.run_id
    if now.state.waiting:
        return NotFound(
            f"{run_id} has no log yet: {now.state}, {now.why}", hint=f"clusterctl tail -f {run_id} waits for it"
        )
    if run.record.job is None:
        return NotFound(
            f"{run_id} printed on the terminal of clusterctl run", hint=f"its log is {run.run_dir / 'training.log'}"
        )
    return NotFound(f"{run_id} left no log: {now.state}, {now.why}", hint=f"clusterctl status {run_id}")


def follow(run: Run, lines: int, streams: Sequence[Stream]) -> Iterator[Text | Status]:
    """Text as it comes; a Status when the job waits (each new reason once) and, last of all, when it ended."""
    logs = [_Log(path, stream) for stream, path in log_paths(run.run_dir, streams).items()]
    for log in logs:
        log.skip_to_last(lines)
    pace = ASK_LOCAL if run.record.scheduler == "local" else ASK_SLURM
    asked_at, said = float("-inf"), ""
    while True:
        quiet = True
        for log in logs:
            if text := log.read():
                quiet = False
                yield Text(log.stream, text)
        if not quiet:
            continue
        due = time.monotonic() - asked_at >= pace
        if due or not status.unsettled(run):
            # A resumed run has a new job: read the record again.
            run = find.one(run.run_dir.parent, run.record.run_id)
            [now] = status.look([run], max_age=pace)
            asked_at = time.monotonic()
            if now.state.final or (now.state is JobState.UNKNOWN and now.gone):
                yield from _remaining(logs)
                yield now
                return
            line = f"{now.state} {now.why}"
            if not now.state.active or now.state.waiting:
                if line != said:
                    yield now
                said = line
        time.sleep(POLL)


def _remaining(logs: Sequence[_Log]) -> Iterator[Text]:
    for log in logs:
        text = "".join(iter(log.read, "")) + log.flush()
        if text:
            yield Text(log.stream, text)
