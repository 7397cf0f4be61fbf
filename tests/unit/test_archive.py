"""``archive``: a run in one file, without keys, from which it can be submitted again."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

from tests.project import Answer

Cli = Callable[..., Answer]
KEY = "0123456789abcdef0123456789abcdef"
PRINTED = """\
MY_API_KEY=hunter22hunter22
declare -x DB_PASSWORD="hunter22 hunter22"
{'OPENAI_API_KEY': 'proj-hunter22', 'PATH': '/usr/bin:/bin'}
Authorization: Bearer hunter22.x.y
api_key: 'hunter22'
export HF_TOKEN="${HF_TOKEN:-}"
PAD_TOKEN_ID=151643151643 max_token: 123456789 "token": "0123456789abcdef"
TOKENS_PER_SECOND=2252.123456
"""
"""What a job may print of keys that nobody here knows, and what only looks so."""


def test_it_holds_what_repeats_the_run_and_no_key(cli: Cli, recipe: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secrets.env").write_text(f"SWANLAB_API_KEY={KEY}\n", encoding="utf-8")
    (tmp_path / "secrets.env").chmod(0o600)
    (folder / "clusterctl.yaml").write_text(
        f"scheduler: local\nsecrets: {{file: {json.dumps(str(tmp_path / 'secrets.env'))}}}\n", encoding="utf-8"
    )
    submitted = cli(
        "submit", str(recipe), "--set", "optim.learning_rate=3e-5", "--set", "profile.time=2:00:00", "--json"
    )
    assert submitted.code == 0, submitted.err
    [run] = submitted.json["data"]["runs"]
    cli("cancel", run["run_id"])
    log = Path(run["run_dir"]) / "logs/job.out"
    log.write_text(f"logged in with {KEY}\nand hf_{'a' * 34}\nby http://me:hunter2@proxy:3128\n", encoding="utf-8")
    log.with_name("job.err").write_text(PRINTED, encoding="utf-8")

    answer = cli("archive", run["run_id"], "out.tar.gz", "--json")
    assert answer.code == 0, answer.err
    assert answer.json["data"]["left_out"] == 3 + 5
    with tarfile.open(folder / "out.tar.gz") as tar:
        tar.extractall(tmp_path, filter="data")
    inside = tmp_path / run["run_id"]
    whole = b"".join(path.read_bytes() for path in inside.rglob("*") if path.is_file())
    assert KEY.encode() not in whole and b"hf_aaa" not in whole
    assert (inside / "logs/job.out").read_text(
        encoding="utf-8"
    ) == "logged in with ***\nand ***\nby http://***@proxy:3128\n"
    printed = (inside / "logs/job.err").read_text(encoding="utf-8")
    assert "hunter22" not in printed and printed.splitlines()[-3:] == PRINTED.splitlines()[-3:]

    again = cli("submit", str(inside / "recipe.yaml"), "--profile", str(inside / "profile.yaml"), "--dry-run", "--json")
    assert again.code == 0, again.err
    first = (Path(run["run_dir"]) / "job.sh").read_text(encoding="utf-8")
    # Variables of the profile stand in the script alone.
    kept = "".join(line for line in first.splitlines(keepends=True) if "GLIBC_TUNABLES" not in line)
    assert again.json["data"]["scripts"][0]["script"] == kept

    assert cli("archive", run["run_id"], "out.tar.gz").code == 2
    assert cli("archive", "nothing").code == 6
    for target in ("no/such/folder.tar.gz", f"{recipe}/a.tar.gz", "a" * 300):
        assert cli("archive", run["run_id"], target).code == 3, target
    log.unlink()
    log.symlink_to(tmp_path / "secrets.env")
    assert "logs/job.out" not in cli("archive", run["run_id"], "third.tar.gz", "--json").json["data"]["files"]
