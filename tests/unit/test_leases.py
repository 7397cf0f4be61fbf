"""GPU leases in a folder that anybody may write to."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from clusterctl.adapters.leases import Leases, Ticket, holders
from clusterctl.adapters.process import user_name
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


# --- signatures ---------------------------------------------------------------------------------


def sign(leases: Leases, holder: str, *uuids: str) -> int:
    with leases.line() as ours:
        assert ours
        return leases.sign(holder, uuids)


def test_a_signature_lasts_as_long_as_somebody_has_it_open(folder: Path) -> None:
    leases, others = Leases(folder), Leases(folder)
    fd = sign(leases, "sft-1", "GPU-1", "GPU-2")
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[fd]) as child:
        os.close(fd)
        seen = list(others.signed())
        child.communicate()
    assert [(lease.uuid, lease.holder, lease.user) for lease in seen] == [
        ("GPU-1", "sft-1", user_name(os.getuid())),
        ("GPU-2", "sft-1", user_name(os.getuid())),
    ]
    assert list(others.signed()) == []


def test_dead_signatures_are_cleared_by_the_next(folder: Path) -> None:
    leases = Leases(folder)
    os.close(sign(leases, "sft-1", "GPU-1"))
    os.close(sign(leases, "sft-2", "GPU-1"))
    fd = sign(leases, "sft-3", "GPU-1")
    assert len(list(folder.glob("held-*"))) == 1
    assert [lease.holder for lease in leases.signed()] == ["sft-3"]
    os.close(fd)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"holder": 7, "uuids": []}', '{"holder": "a", "uuids": "GPU-1"}'])
def test_a_signature_that_is_none_is_passed_over(folder: Path, text: str) -> None:
    leases = Leases(folder)
    with (folder / "held-0").open("w") as file:
        file.write(text)
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        assert list(leases.signed()) == []


def test_a_signature_cannot_write_into_others_terminals(folder: Path) -> None:
    leases = Leases(folder)
    fd = sign(leases, "\x1b]0;跑\n" + "y" * 1000, "GPU-1")
    [lease] = leases.signed()
    assert lease.holder == "?]0;跑?" + "y" * 94
    os.close(fd)


def test_nobody_makes_the_folder_by_looking(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTERCTL_LEASE_DIR", str(folder))
    assert holders() == ()
    assert not folder.exists()
