"""Paths that cannot be used, streams that cannot be written, files beside good ones that are broken."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clusterctl import paths, settings
from clusterctl.adapters import store
from clusterctl.errors import ClusterctlError, Unavailable, UsageProblem
from clusterctl.runs import find
from clusterctl.schema import Site
from tests.unit.conftest import CLUSTERCTL, Answer
from tests.unit.test_bad_input import refused

Cli = Callable[..., Answer]
LONG = "x" * 300
NOBODY = 65534


@pytest.fixture
def locked_folder() -> Iterator[Path]:
    """A folder that we may not enter. Root may enter every folder, so be somebody else for a while."""
    user = os.geteuid()
    # Not in tmp_path, which others may not enter at all.
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        path = Path(name) / "locked"
        (path / "foo").mkdir(parents=True)
        (path / "foo" / "record.json").write_text("{}", encoding="utf-8")
        path.chmod(0)
        if user == 0:
            os.seteuid(NOBODY)
        yield path
        os.seteuid(user)
        path.chmod(0o700)


def test_user_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert paths.user_path("a/b") == tmp_path / "a" / "b"
    assert paths.user_path("~/x") == Path("/home/me/x")
    (tmp_path / "loop").symlink_to("loop")
    for bad in (LONG, "~nosuchuser/x", "a\0b", "loop"):
        with pytest.raises(UsageProblem) as problem:
            paths.user_path(bad)
        assert "\n" not in problem.value.message
        assert problem.value.hint
    assert not paths.is_file(Path(LONG))
    assert not paths.is_dir(Path(LONG))


def test_a_working_directory_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(UsageProblem, match="the working directory is gone"):
        paths.user_path("x")


def test_folders_that_may_not_be_entered(locked_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for use in (
        lambda: paths.user_path(locked_folder / "x"),
        lambda: find.one(locked_folder, "foo"),
        lambda: find.every(locked_folder),
    ):
        with pytest.raises(ClusterctlError, match="Permission denied"):
            use()
    assert not paths.is_file(locked_folder / "foo" / "record.json")
    runs, [problem] = find.every(locked_folder.parent)
    assert runs == []
    assert "the record of locked cannot be read: Permission denied" in problem
    monkeypatch.setenv("XDG_CONFIG_HOME", str(locked_folder))
    with pytest.raises(UsageProblem, match="Permission denied"):
        settings.load()


def test_a_lock_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="No such file"), store.locked(tmp_path / "gone"):
        pass
    with pytest.raises(IsADirectoryError), store.locked(tmp_path):
        # What goes wrong under the lock is not the lock's.
        tmp_path.open()


@pytest.mark.parametrize("command", ["tail", "status", "cancel", "resume"])
def test_a_run_of_a_name_that_is_too_long(cli: Cli, command: str) -> None:
    refused(cli(command, LONG), 6, "there are no runs")


@pytest.mark.parametrize("name", [f"{LONG}.yaml", "~nosuchuser/x.yaml"])
def test_a_recipe_that_no_path_can_name(cli: Cli, name: str) -> None:
    for words in (["submit", name], ["recipes", "show", name], ["recipes", "copy", name]):
        refused(cli(*words), 2, name)


def test_an_output_root_that_no_path_can_name(cli: Cli) -> None:
    for root in (LONG, "~nosuchuser/x"):
        refused(cli("status", CLUSTERCTL_OUTPUT_ROOT=root), 2, root)


def test_one_bad_file_does_not_break_the_list(cli: Cli, folder: Path) -> None:
    (folder / "recipes" / "folder.yaml").mkdir(parents=True)
    files = {
        "torn.yaml": b"a: [",
        "latin.yaml": b"stage: \xff",
        "tag.yaml": b"stage: !!bool x",
        "markup.yaml": b'description: "[/foo] :smile:"',
    }
    for name, content in files.items():
        (folder / "recipes" / name).write_bytes(content)
    answer = cli("recipes", "list")
    assert answer.code == 0, answer.err
    assert answer.out.count("cannot be used:") == 3
    assert "[/foo] :smile:" in answer.out
    assert "folder" not in {asset["name"] for asset in cli("recipes", "list", "--json").json["data"]}
    refused(cli("recipes", "show", "latin"), 2, "not UTF-8")
    refused(cli("recipes", "show", "recipes/folder.yaml"), 6, "there is no file")
    refused(cli("recipes", "copy", "latin", "new.yaml"), 2, "latin.yaml is not UTF-8")
    assert not (folder / "new.yaml").exists()


def test_the_names_of_the_sites_keys_are_the_schemas() -> None:
    assert set(settings.KEYS) == set(Site.model_fields)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("output_rot: x\n", ["clusterctl.yaml:1", "unknown key output_rot", "did you mean output_root?"]),
        ("output_root: [a]\n", ["clusterctl.yaml:1", "output_root", "string"]),
        ("scheduler: pbs\n", ["clusterctl.yaml:1", "scheduler", "'pbs'"]),
        ("1: x\n", ["clusterctl.yaml"]),
    ],
)
def test_a_wrong_site_file_is_noticed_by_every_command(cli: Cli, folder: Path, text: str, words: list[str]) -> None:
    (folder / "clusterctl.yaml").write_text(text, encoding="utf-8")
    for command in (["status"], ["tail", "last"], ["cancel", "last"]):
        refused(cli(*command), 2, *words)


def shell(line: str, home: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    env = {**home, "PATH": f"{CLUSTERCTL.parent}:/usr/bin:/bin"}
    return subprocess.run(["bash", "-c", line], cwd=folder, env=env, capture_output=True, text=True)


@pytest.mark.parametrize("words", ["--version", "status", "status --json", "profiles list", "profiles show cpu"])
def test_output_that_cannot_be_written(words: str, home: dict[str, str], folder: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    gone = subprocess.run([CLUSTERCTL, *words.split()], cwd=folder, env=home, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (gone.returncode, gone.stderr) == (141, b"")
    full = shell(f"clusterctl {words} > /dev/full", home, folder)
    assert (full.returncode, full.stderr.splitlines()[0]) == (
        3,
        "error: cannot write the output: No space left on device",
    )
    assert len(full.stderr.splitlines()) == 2
    closed = shell(f"clusterctl {words} >&-", home, folder)
    assert (closed.returncode, closed.stderr) == (0, "")


def test_output_in_an_encoding_that_lacks_a_character(cli: Cli, folder: Path) -> None:
    (folder / "狼.yaml").write_text("stage: sft\n", encoding="utf-8")
    plain = cli("recipes", "show", "./狼.yaml", PYTHONIOENCODING="ascii")
    assert (plain.code, "/?.yaml" in plain.out, plain.err) == (0, True, "")
    as_json = cli("recipes", "show", "./狼.yaml", "--json", PYTHONIOENCODING="ascii")
    assert as_json.json["data"]["asset"]["name"] == "狼"


def test_ctrl_c_while_modules_are_loaded(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "early").mkdir()
    (tmp_path / "early" / "typer.py").write_text("import os\nos.kill(os.getpid(), 2)\n", encoding="utf-8")
    answer = cli("status", PYTHONPATH=str(tmp_path / "early"))
    assert (answer.code, answer.out, answer.err) == (130, "", "")
