"""What other users of a machine could do to us, and does not work: docs/security.md names the tests of this file."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from clusterctl import assets, output
from clusterctl.adapters import local_job, metrics, store
from clusterctl.errors import NotFound, Unavailable
from clusterctl.result import Result
from clusterctl.status import Progress
from tests.project import Answer

Cli = Callable[..., Answer]
LOCAL = ("--scheduler", "local")


def submitted(cli: Cli, recipe: Path, folder: Path, **env: str) -> Path:
    """The directory of a run that has ended at once: its trainer is missing in this environment."""
    answer = cli("submit", str(recipe), *LOCAL, "--json", **env)
    assert answer.code == 0, answer.err
    [run] = answer.json["data"]["runs"]
    cli("cancel", run["run_id"])
    return Path(run["run_dir"])


def test_the_umask_decides_who_reads_runs(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        run_dir = store.make_run_dir(tmp_path / "logs", "r")
        store.write_atomic(run_dir / "job.sh", "x", mode=0o755)
        store.write_atomic(run_dir / "run.yaml", "x")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (run_dir, *run_dir.iterdir())}
    assert modes == {"r": 0o700, "logs": 0o700, "job.sh": 0o700, "run.yaml": 0o600}


def test_a_link_in_the_place_of_a_record_is_replaced_and_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine", encoding="utf-8")
    (tmp_path / "record.json").symlink_to(victim)
    store.write_atomic(tmp_path / "record.json", "{}")
    assert victim.read_text(encoding="utf-8") == "mine" and not (tmp_path / "record.json").is_symlink()
    (tmp_path / "taken").symlink_to(tmp_path)
    with pytest.raises(FileExistsError):
        store.make_run_dir(tmp_path, "taken")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises((FileExistsError, Unavailable)):
        store.make_run_dir(tmp_path, "dangling")


def test_a_pipe_in_the_place_of_a_file_keeps_nobody_waiting(tmp_path: Path) -> None:
    for name in ("record.json", "progress.json", "attempts.jsonl", "metrics.jsonl", "local.json"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(NotFound, match="no regular file"):
        store.read_record(tmp_path)
    assert store.read_progress(tmp_path) == Progress() and store.read_attempts(tmp_path) == []
    assert metrics.glance(tmp_path) == []
    with pytest.raises(local_job.Unreadable):
        local_job.read(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_run_that_somebody_else_has_put_there_is_not_run_as_us(cli: Cli, recipe: Path, folder: Path) -> None:
    run_dir = submitted(cli, recipe, folder)
    (run_dir / "notify.json").touch()
    for name in (".", "job.sh", "run.yaml", "notify.json"):
        os.chown(run_dir / name, 65534, -1)
        answer = cli("resume", run_dir.name)
        assert answer.code == 5 and "would run it as you" in answer.err, (name, answer)
        os.chown(run_dir / name, os.geteuid(), -1)
    assert len(json.loads((run_dir / "record.json").read_text(encoding="utf-8"))["jobs"]) == 1


@pytest.mark.parametrize("way", ["folder", "variable"])
def test_a_job_template_that_is_not_shipped_is_named(cli: Cli, recipe: Path, folder: Path, way: str) -> None:
    place = folder / "job_templates" if way == "folder" else folder / "theirs/job_templates"
    place.parent.mkdir(exist_ok=True)
    place.mkdir()
    for path in assets.shipped_dir("job_templates").iterdir():
        (place / path.name).write_bytes(path.read_bytes())
    env = {} if way == "folder" else {"CLUSTERCTL_PATH": str(place.parent)}
    answer = cli("submit", str(recipe), *LOCAL, "--dry-run", **env)
    assert answer.code == 0, answer.err
    said = answer.out + answer.err
    assert f"the job script is made from {place / 'job.sh.j2'}" in said and "not from the shipped" in said


def test_the_shipped_template_needs_no_word(cli: Cli, recipe: Path) -> None:
    answer = cli("submit", str(recipe), *LOCAL, "--dry-run")
    assert answer.code == 0 and "the job script is made from" not in answer.out + answer.err


def test_a_job_template_cannot_run_anything_while_it_is_rendered(cli: Cli, recipe: Path, folder: Path) -> None:
    """Jinja2's way to Python's own classes; what a template prints is shell, and shown by --dry-run."""
    (folder / "job_templates").mkdir()
    canary = folder / "canary"
    attack = f"{{{{ plan.__init__.__globals__['__builtins__']['open']({json.dumps(str(canary))}, 'w') }}}}"
    (folder / "job_templates/job.sh.j2").write_text(attack, encoding="utf-8")
    answer = cli("submit", str(recipe), *LOCAL, "--dry-run")
    assert answer.code == 2 and not canary.exists(), answer


def test_keys_are_in_no_process_list_and_in_no_file_of_the_run(cli: Cli, recipe: Path, folder: Path) -> None:
    key = "0123456789abcdef0123456789abcdef"
    run_dir = submitted(cli, recipe, folder, SWANLAB_API_KEY=key, HF_TOKEN="hf_" + "z" * 34)
    whole = b"".join(path.read_bytes() for path in run_dir.rglob("*") if path.is_file())
    assert key.encode() not in whole and b"hf_zzz" not in whole
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert key not in listed


def test_what_others_wrote_reaches_the_terminal_without_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    output.show(Result("x", {}, lambda: "", notes=["of a recipe named \x1b]0;x\x07"]), as_json=False)
    assert capsys.readouterr().err == "note:  of a recipe named ?]0;x?\n"
