"""The cache that terminals share: private, never needed, never believed when it is not ours."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clusterctl.adapters.slurm_cache import Known, Sighting, SlurmCache
from clusterctl.model import JobState


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("SLURM_CONF", raising=False)
    return tmp_path / "clusterctl"


def known() -> Known:
    seen = Sighting(JobState.RUNNING, time.time(), 5.0, "17\x1fFAILED\n18\x1f\u2028")
    return Known("17\x1fRUNNING\r\n", time.time(), "down", 3.5, 1.0, "refused", {"tok": seen})


def the_file(base: Path) -> Path:
    [path] = base.glob("*.json")
    return path


def test_what_one_saves_another_loads(base: Path) -> None:
    one = known()
    SlurmCache().save(one)
    assert SlurmCache().load() == one
    assert stat.S_IMODE(base.stat().st_mode) == 0o700
    assert stat.S_IMODE(the_file(base).stat().st_mode) == 0o600


def test_clusters_are_kept_apart(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SlurmCache().save(known())
    monkeypatch.setenv("SLURM_CONF", "/other/slurm.conf")
    assert SlurmCache().load() == Known()


def test_jobs_that_nobody_asks_about_are_dropped(base: Path) -> None:
    long_ago = time.time() - 100 * 86400
    SlurmCache().save(
        Known(sightings={"old": Sighting(JobState.RUNNING, long_ago), "new": Sighting(seen_at=time.time())})
    )
    assert list(SlurmCache().load().sightings) == ["new"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200) | st.recursive(st.none() | st.text(), st.lists).map(lambda v: json.dumps(v).encode()))
def test_a_corrupt_file_is_no_cache(base: Path, content: bytes) -> None:
    SlurmCache().save(known())
    the_file(base).write_bytes(content)
    assert SlurmCache().load() == Known()


def test_a_torn_file_and_one_of_another_version_are_no_cache(base: Path) -> None:
    SlurmCache().save(known())
    whole = the_file(base).read_text()
    for content in (
        whole[: len(whole) // 2],
        whole.replace('"schema": 1', '"schema": 2'),
        whole.replace("RUNNING", "?"),
    ):
        the_file(base).write_text(content)
        assert SlurmCache().load() == Known()


def test_a_link_is_not_followed(base: Path, tmp_path: Path) -> None:
    SlurmCache().save(known())
    path = the_file(base)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert SlurmCache().load() == Known()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_or_folder_of_another_user_is_not_believed(base: Path) -> None:
    SlurmCache().save(known())
    os.chown(the_file(base), 65534, 65534)
    assert SlurmCache().load() == Known()
    os.chown(the_file(base), 0, 0)
    os.chown(base, 65534, 65534)
    assert SlurmCache().load() == Known()


def test_an_open_folder_is_closed(base: Path) -> None:
    base.mkdir(mode=0o777)
    base.chmod(0o777)
    SlurmCache().save(known())
    assert stat.S_IMODE(base.stat().st_mode) == 0o700


def test_without_a_folder_nothing_is_kept_and_nothing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clusterctl").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache = SlurmCache()
    with cache.locked(1.0):
        cache.save(known())
        cache.note_change()
    assert cache.load() == Known() and cache.changed_at() == 0.0


def test_a_change_is_noted_for_all(base: Path) -> None:
    before = time.time()
    SlurmCache().note_change()
    assert before <= SlurmCache().changed_at() <= time.time()


def test_a_lock_that_nobody_gives_back_is_not_waited_for_for_ever(base: Path) -> None:
    cache = SlurmCache()
    with cache.locked(1.0):
        pass
    [path] = base.glob("*.lock")
    with path.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        began = time.monotonic()
        with cache.locked(0.3):
            assert 0.3 <= time.monotonic() - began < 5
    with cache.locked(30.0):
        assert time.monotonic() - began < 5
