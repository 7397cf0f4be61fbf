"""Following logs: whole lines, from the end, over truncation, and never a byte twice."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from clusterctl.runs.tail import _Log


def log(tmp_path: Path, content: bytes) -> _Log:
    path = tmp_path / "job.out"
    path.write_bytes(content)
    return _Log(path, "out")


@given(st.lists(st.binary(max_size=30).map(lambda b: b.replace(b"\n", b"")), max_size=8), st.integers(0, 10))
def test_the_last_lines_are_the_last_lines(lines: list[bytes], wanted: int) -> None:

    with tempfile.TemporaryDirectory() as scratch:
        one = log(Path(scratch), b"".join(line + b"\n" for line in lines))
        one.skip_to_last(wanted)
        text = one.read()
    expected = b"".join(line + b"\n" for line in lines[len(lines) - min(wanted, len(lines)) :])
    assert text == expected.decode("utf-8", errors="replace")


def test_a_line_comes_when_it_is_whole(tmp_path: Path) -> None:
    one = log(tmp_path, b"first\nsec")
    assert one.read() == "first\n"
    with one.path.open("ab") as f:
        f.write("ond 狼\n".encode())
    assert one.read() == "second 狼\n"
    assert one.read() == ""
    with one.path.open("ab") as f:
        f.write(b"no end")
    assert one.read() == ""
    assert one.flush() == "no end"


def test_a_shrunk_or_replaced_log_is_read_from_its_start(tmp_path: Path) -> None:
    one = log(tmp_path, b"a long first line\n")
    assert one.read() == "a long first line\n"
    one.path.write_bytes(b"short\n")
    assert one.read() == "short\n"
    other = tmp_path / "new"
    other.write_bytes(b"replaced by another file\n")
    other.rename(one.path)
    assert one.read() == "replaced by another file\n"


def test_a_missing_log_is_nothing_yet(tmp_path: Path) -> None:
    one = _Log(tmp_path / "none", "out")
    one.skip_to_last(5)
    assert one.read() == ""
    one.path.write_bytes(b"now\n")
    assert one.read() == "now\n"
