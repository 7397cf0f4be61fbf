"""Too little memory, word of a run, and runs that wait for ever, on a real Slurm. The trainer is a stand-in."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from tests.project import Project
from tests.slurm.box import Box, until
from tests.slurm.stand_in import finish, make_stand_in_project
from tests.webhook import webhook

BoxFactory = Callable[..., Box]

_SMALL = """\
#!/bin/bash
# In the place of the Python that trains: more than one row at once does not fit.
[[ $1 == -m && $2 == trainers ]] || exec {python} "$@"
if ! grep -q 'per_device_train_batch_size: 1$' run.yaml; then
    echo 'torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.' >&2
    exit 1
fi
printf '{{"schema":1,"attempt":%s,"phase":"finished","step":12,"max_steps":12}}' "$CLUSTERCTL_ATTEMPT" > progress.json
"""
MAILER = '#!/bin/bash\nprintf "%s|" "$@" >> {log}\necho >> {log}\n'
BATCH = ("--set", "optim.per_device_train_batch_size=4", "--set", "optim.gradient_accumulation_steps=1")


def small_project(folder: Path, box: Box) -> Project:
    project = make_stand_in_project(folder / "a'; echo foo", box)
    (folder / "stand-in").write_text(_SMALL.format(python=shlex.quote(sys.executable)), encoding="utf-8")
    return project


def test_the_job_changes_itself_and_says_so_by_mail(slurm_box: BoxFactory, tmp_path: Path) -> None:
    mailer, log = tmp_path / "mailer", tmp_path / "mails"
    mailer.write_text(MAILER.format(log=shlex.quote(str(log))), encoding="utf-8")
    mailer.chmod(0o755)
    box = slurm_box(extra=f"MailProg={mailer}")
    project = small_project(tmp_path, box)
    run = project.submit(*BATCH, "--auto-fix", "oom", "--notify", "mail:you@example.org")
    run.wait_for("COMPLETED")
    ends = [(line["decision"], line.get("fix")) for line in run.attempts if line["event"] == "end"]
    assert ends == [("requeue", "2 rows at once"), ("requeue", "1 row at once"), ("done", None)]
    until(lambda: log.exists() and "Ended" in log.read_text(encoding="utf-8"), f"mail in {log}")
    text = log.read_text(encoding="utf-8")
    assert "you@example.org" in text and text.count("Requeued") == 2


def test_the_node_sends_word_of_a_failure_and_a_person_learns_the_cause(slurm: Box, tmp_path: Path) -> None:
    project = small_project(tmp_path, slurm)
    with webhook() as hook:
        # Known to the site, so that every run says its end.
        with (project.folder / "clusterctl.yaml").open("a", encoding="utf-8") as site:
            site.write(f"notify: {hook.url}\n")
        run = project.submit(*BATCH)
        until(lambda: project.state(run.run_id)["state"] == "FAILED", "the failure", 120)
        [message] = hook.of(run.run_id)
    assert (message["event"], message["cause"], message["exit_code"]) == ("failed", "cuda_out_of_memory", 1)
    assert message["host"] == "cpu-1" and message["job_id"] == run.job_id
    text = " ".join(project.cli("status", run.run_id).out.split())
    assert "a GPU ran out of memory" in text and f"clusterctl diagnose {run.run_id}" in text


def test_what_waits_for_ever_is_told_from_what_waits(slurm: Box, tmp_path: Path) -> None:
    project = make_stand_in_project(tmp_path / "a'; echo foo", slurm)
    first = project.submit()
    second = project.submit("--after", first.run_id)

    def diagnosed() -> tuple[str, str]:
        said = project.cli("diagnose", second.run_id, "--json").json["data"]
        return said["cause"], said["remedy"]

    until(lambda: diagnosed()[0] == "waiting", "the second to wait")
    slurm.command("scontrol", "hold", second.job_id)
    until(lambda: diagnosed()[0] == "pending_for_ever", "the hold")
    assert "release" in diagnosed()[1]
    slurm.command("scontrol", "release", second.job_id)
    until(lambda: diagnosed()[0] == "waiting", "the release")
    first.wait_for("RUNNING")
    assert project.cli("cancel", first.run_id).code == 0
    until(lambda: diagnosed()[0] == "dependency", "the end of the first")
    assert f"clusterctl diagnose {first.run_id}" in diagnosed()[1]
    last = project.submit()
    finish(last)
    assert project.cli("diagnose", last.run_id, "--json").json["data"]["cause"] == "healthy"
