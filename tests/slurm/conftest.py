"""Real Slurm clusters for the tests. A machine without Slurm fails them: `make test` installs it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.slurm.box import Box, missing_programs
from tests.slurm.client import Client

BoxFactory = Callable[..., Box]


def pytest_configure() -> None:
    """Let SIGTERM, which CI and timeout(1) send, end the clusters as Ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def _start(boxes: ExitStack, **options: object) -> Box:
    if missing := missing_programs(accounting=bool(options.get("accounting"))):
        pytest.fail(f"not installed: {', '.join(missing)}. `make slurm` installs what is needed", pytrace=False)
    box = Box(**options)  # type: ignore[arg-type]
    boxes.callback(box.down)
    box.up()
    return box


@pytest.fixture(scope="session")
def slurm() -> Iterator[Box]:
    """A cluster without accounting, shared by all tests: leave its nodes and its controller as they are."""
    with ExitStack() as boxes:
        yield _start(boxes)


@pytest.fixture(scope="session")
def slurm_accounting() -> Iterator[Box]:
    """A cluster with accounting that keeps comments, and forgets jobs within seconds; shared like ``slurm``."""
    with ExitStack() as boxes:
        yield _start(boxes, accounting=True, min_job_age=2, extra="AccountingStoreFlags=job_comment")


@pytest.fixture
def slurm_box() -> Iterator[BoxFactory]:
    """Make private clusters: ``slurm_box(slurmd_timeout=3)``. They end with the test."""
    with ExitStack() as boxes:
        yield lambda **options: _start(boxes, **options)


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is first on PATH, for fake commands."""
    folder = tmp_path / "commands"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


@pytest.fixture
def enter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Box], Client]:
    """Become a user of a box, with an empty cache and a folder whose name breaks careless quoting."""

    def use(box: Box) -> Client:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        return Client(box, tmp_path / "a'; echo foo", monkeypatch)

    return use


@pytest.fixture
def client(slurm: Box, enter: Callable[[Box], Client]) -> Client:
    """A user of the shared cluster without accounting."""
    return enter(slurm)
