"""GPU leases in a folder that anybody may write to."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from clusterctl.adapters.leases import Leases, Ticket
from clusterctl.errors import Unavailable


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "a'; echo foo"


def draw(leases: Leases, *claim: str) -> Ticket:
    with leases.line() as ours:
        assert ours
        return leases.draw_ticket(claim)


def test_a_gpu_is_leased_once(folder: Path) -> None:
    leases, others = Leases(folder), Leases(folder)
    fd = leases.lease("GPU-1")
    assert fd is not None
    assert others.lease("GPU-1") is None
    assert others.lease("GPU-2") is not None
    os.close(fd)
    assert others.lease("GPU-1") is not None


def test_whoever_inherits_the_lease_holds_it(folder: Path) -> None:
    leases = Leases(folder)
    fd = leases.lease("GPU-1")
    assert fd is not None
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[fd]) as child:
        os.close(fd)
        assert leases.lease("GPU-1") is None
        child.communicate()
    assert leases.lease("GPU-1") is not None


def test_all_users_may_write_whatever_the_umask_and_cleaners_are_told_to_keep_off(folder: Path) -> None:
    before = os.umask(0o077)
    try:
        Leases(folder).lease("GPU-1")
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o1777
    assert stat.S_IMODE((folder / "GPU-1").stat().st_mode) == 0o1644


def test_links_and_other_traps_are_refused(folder: Path, tmp_path: Path) -> None:
    treasure = tmp_path / "treasure"
    treasure.mkdir()
    (tmp_path / "link").symlink_to(treasure)
    with pytest.raises(Unavailable, match="GPU leases cannot be kept in"):
        Leases(tmp_path / "link")
    leases = Leases(folder)
    (folder / "GPU-1").symlink_to(treasure / "file")
    os.mkfifo(folder / "GPU-2")
    (folder / "GPU-3").mkdir()
    for name in ("GPU-1", "GPU-2", "GPU-3", "../GPU-4"):
        with pytest.raises(Unavailable):
            leases.lease(name)
    assert not list(treasure.iterdir())


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable):
        Leases(tmp_path / "file")


def test_the_line_is_held_by_one(folder: Path) -> None:
    leases, others = Leases(folder), Leases(folder)
    with leases.line() as ours:
        assert ours
        with others.line() as theirs:
            assert not theirs
    with others.line() as theirs:
        assert theirs


def test_claims_of_those_ahead(folder: Path) -> None:
    leases = Leases(folder)
    first, second, third = draw(leases, "GPU-1", "GPU-2"), draw(leases, "GPU-2"), draw(leases, "GPU-3")
    assert leases.claims_ahead(first) == []
    assert leases.claims_ahead(third) == [{"GPU-1", "GPU-2"}, {"GPU-2"}]
    leases.give_back(first)
    assert leases.claims_ahead(third) == [{"GPU-2"}]
    assert draw(leases).number > third.number
    leases.give_back(second)


def test_dead_and_forged_tickets_count_for_nothing(folder: Path) -> None:
    code = "import sys; from pathlib import Path; from clusterctl.adapters.leases import Leases\n"
    code += "leases = Leases(Path(sys.argv[1]))\nwith leases.line(): leases.draw_ticket(['GPU-1'])"
    leases = Leases(folder)
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, cwd=Path(__file__).parents[2])
    assert (folder / "ticket-00000001").exists()
    os.mkfifo(folder / "ticket-00000002")
    (folder / "ticket-x").touch()
    ticket = draw(leases, "GPU-1")
    assert leases.claims_ahead(ticket) == []
    assert not (folder / "ticket-00000001").exists()
