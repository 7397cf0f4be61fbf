"""Word of a run: what it says, to whom, and that nothing waits for it or reads a key in it."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path

import pytest

from clusterctl.adapters.store import read_attempts
from clusterctl.errors import UsageProblem
from clusterctl.runs.aftercare import allowed, told, without_address
from clusterctl.schema import Site
from tests.local_box import LocalBox, wait_until
from tests.webhook import webhook
from trainers import guard, notify


@pytest.fixture
def run_dir(folder: Path) -> Path:
    path = folder / "run'; touch pwned; echo \"$x"
    path.mkdir()
    (path / "progress.json").write_text(json.dumps({"step": 7, "max_steps": 12, "loss": 1.5}), encoding="utf-8")
    return path


def tell(run_dir: Path, to: str, **facts: object) -> str:
    said = {"schema": 1, "to": to, "run_id": "sft-1'; touch pwned", "name": "$(touch pwned)", "hide": ["HF_TOKEN"]}
    (run_dir / notify.FILE).write_text(json.dumps(said), encoding="utf-8")
    return notify.send(run_dir, "failed", **facts)


def test_a_command_gets_json_without_a_shell_and_without_keys(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("A_TOKEN", "hf_secret")
    monkeypatch.setenv("HF_TOKEN", "hf_secret_value")
    monkeypatch.setenv("MY_API_KEY", 'quoted "secret"')
    monkeypatch.chdir(tmp_path)
    script = (
        "import json, os, sys; found = [sys.argv, dict(os.environ), json.load(sys.stdin)];"
        " print(json.dumps(found), file=open(sys.argv[1], 'w'))"
    )
    why = 'no access with hf_secret_value and quoted "secret"; $(touch pwned)'
    assert tell(run_dir, f"python3 -c {json.dumps(script)} 'out file' '$HOME;`id`'", why=why) == ""
    words, environment, message = json.loads((tmp_path / "out file").read_text(encoding="utf-8"))
    assert words[1:] == ["out file", "$HOME;`id`"]
    assert "HF_TOKEN" not in environment
    assert message["why"] == "no access with *** and ***; $(touch pwned)"
    assert (message["event"], message["run_id"], message["step"], message["max_steps"]) == (
        "failed",
        "sft-1'; touch pwned",
        7,
        12,
    )
    assert not (tmp_path / "pwned").exists()


def test_a_webhook_gets_it_too(run_dir: Path) -> None:
    with webhook() as hook:
        assert tell(run_dir, hook.url, why="ä\n\udcff") == ""  # a name that is no UTF-8
        assert [(one["event"], one["why"], one["loss"]) for one in hook.messages] == [("failed", "ä\n?", 1.5)]
        assert hook.messages[0]["text"].startswith("sft-1'; touch pwned failed: ä")


def test_who_heard_that_it_goes_on_hears_that_it_does_not(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTERCTL_JOB_ID", "7")
    with webhook() as hook:
        (run_dir / notify.FILE).write_text(json.dumps({"to": hook.url, "run_id": "r"}), encoding="utf-8")
        assert [guard.main(["begin", str(run_dir)]) for _ in range(4)] == [0, 0, 0, 1]
        assert [one["event"] for one in hook.messages] == ["requeued", "requeued", "failed"]
        assert "made no checkpoint" in hook.messages[-1]["why"]
    last = read_attempts(run_dir)[-1]
    assert (last.number, last.decision, last.why) == (3, "stop", hook.messages[-1]["why"])  # and so `status` says


def test_messengers_that_fail_or_hang_hold_nothing_up_and_give_no_address_away(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "TIMEOUT", 0.3)
    for to in ("no-such-program --key=abc", "false", "http://127.0.0.1:9/?key=abc", "https://[broken/?key=abc"):
        problem = tell(run_dir, to)
        assert problem.startswith("nobody was told (failed): ") and "abc" not in problem
    began = time.monotonic()
    assert "TimeoutExpired" in tell(run_dir, "bash -c 'sleep 60 & sleep 60'")
    assert time.monotonic() - began < 60, "it waited for the command"
    (run_dir / notify.FILE).write_text("torn", encoding="utf-8")
    assert notify.send(run_dir, "failed") == ""


def test_what_may_be_named_and_what_the_site_says() -> None:
    site = Site(notify="mail:you@example.org")
    assert told(None, Site(), "slurm") == ""
    assert told(None, site, "slurm") == "mail:you@example.org"
    assert told(None, site, "local") == ""  # there is no Slurm to send it
    assert told("none", site, "slurm") == ""
    assert told("notify-send 'a run'", site, "local") == "notify-send 'a run'"
    for wrong in ("mail:", "mail:a b@c", "mail:a@b,c@d", "ftp://x", "https://", "echo 'open"):
        with pytest.raises(UsageProblem):
            told(wrong, Site(), "slurm")
    with pytest.raises(UsageProblem):
        told("mail:you@example.org", Site(), "local")
    assert without_address(["submit", "--notify", "https://key", "--notify=https://key", "x"]) == (
        "submit",
        "--notify",
        "***",
        "--notify=***",
        "x",
    )
    assert allowed(["oom,shorter"]) == ("oom", "shorter") and allowed(None) == ()
    for unknown in (["all"], ["shorter"], [""]):
        with pytest.raises(UsageProblem):
            allowed(unknown)


def test_the_local_runner_tells_what_a_job_no_longer_can(box: LocalBox) -> None:
    with webhook() as hook:
        said = json.dumps({"to": hook.url, "run_id": "told"})
        begun = f"printf '%s' {shlex.quote(said)} > notify.json; echo "
        attempt = shlex.quote(json.dumps({"event": "begin", "attempt": 1, "job_id": "JOB", "time": 1}))
        ended = shlex.quote(json.dumps({"event": "end", "attempt": 1, "time": 2}))
        log = 'attempt() { sed "s/JOB/$CLUSTERCTL_JOB_ID/" >> attempts.jsonl; }; '
        killed = box.submit(f"{log}{begun}{attempt} | attempt; kill -9 $$")
        known = box.submit(f"{log}{begun}{attempt} | attempt; echo {ended} | attempt; exit 1")
        for ref in (killed, known):
            box.until(ref)
        wait_until(lambda: bool(hook.messages))
        # The guard has told the other one's end.
        assert [(one["event"], one["job_id"]) for one in hook.messages] == [("failed", killed.job_id)]
        assert "signal 9" in hook.messages[0]["why"]
