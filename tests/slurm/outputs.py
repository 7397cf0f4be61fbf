"""Answers of a real Slurm in the formats that clusterctl asks for, written down for the tests of the parsers.

    python -m tests.slurm.outputs FOLDER

Brings up a throw-away cluster of the Slurm on PATH and writes FOLDER/VERSION.json. Names of the machine, of its user
and of its folders are replaced; nothing else is. Another release in a folder of its own serves as well, when scripts
on PATH call its programs by chroot(8).
"""

from __future__ import annotations

import json
import re
import socket
import sys
from pathlib import Path

from clusterctl.adapters import slurm_cluster
from clusterctl.adapters import slurm_text as text
from tests.slurm.box import Box, until

OPTIONS = {
    "running": ("sleep 600", "-p", "a800", "--gres=gpu:a800:2", "-t", "1-02:03:04"),
    "two-nodes": ("sleep 600", "-p", "a800", "-N2", "--gres=gpu:a800:1"),
    "completed": ("true",),
    "failed": ("exit 7",),
    "killed": ("kill -9 $$",),
    "cancelled": ("sleep 600",),
    "resources": ("true", "-p", "a800", "-N2", "--gres=gpu:a800:4", "-t", "10"),
    "held": ("true", "--hold"),
    "later": ("true", "--begin=now+1hour"),
    "array": ("sleep 600", "--array=3-6%2"),
    "too-long": ("true", "-t", "20-0"),
    "requeued": ("sleep 600",),
    "hostile": ("sleep 600", "-J", "a|b\tc d%x"),
    "no-output": ("true", "--output=missing/folder/x"),
    "never": ("true", "--dependency=afterok:{failed}"),
    "killed-dependent": ("true", "--dependency=afterok:{failed}", "--kill-on-invalid-dep=yes"),
}
"""What is submitted, each job under its name as clusterctl's comment has it. ``{failed}`` is the id of that job."""

REFUSED = {
    "partition": ("-p", "nowhere"),
    "memory": ("--mem=9000G",),
    "gres": ("-p", "cpu", "--gres=gpu:a800:1"),
    "type": ("-p", "a800", "--gres=gpu:h100:1"),
    "qos": ("--qos=nothing",),
    "time": ("-t", "soon"),
}


def collect(box: Box, accounting: bool) -> dict[str, object]:
    """Run the scenes on a cluster that is up, and return each command's answer, lines split."""
    box.env |= {"SLURM_TIME_FORMAT": "%s", "TZ": "UTC0"}
    folder = box.folder / "a b'c"
    folder.mkdir(mode=0o777)
    ids: dict[str, str] = {}
    submitted = []
    for name, (script, *options) in OPTIONS.items():
        argv = ("sbatch", "--parsable", "--mem=10", f"--comment=clusterctl:{name}:0123456789abcdef")
        filled = (option.format(**ids) for option in options)
        done = box.command(*argv, "--output=/dev/null", *filled, "--wrap", script, cwd=folder)
        submitted.append(done.stdout)
        ids[name] = done.stdout.strip()
    for name in ("running", "two-nodes", "requeued", "hostile", "cancelled"):
        box.wait_for(ids[name], "RUNNING")
    box.wait_for(ids["failed"], "FAILED")
    box.command("scancel", ids["cancelled"])
    box.wait_for(ids["cancelled"], "CANCELLED")
    box.command("scontrol", "requeue", ids["requeued"])
    until(lambda: box.state(ids["requeued"]) == "PENDING", "the requeue")
    box.wait_for(ids["killed-dependent"], "CANCELLED")
    node = ("scontrol", "update", "NodeName=gpu-a40-1", "State=DRAIN", "Reason=bad card: Xid 79, see #12 | ask ann")
    box.command(*node)

    def answer(*argv: str) -> dict[str, object]:
        done = box.command(*argv, cwd=folder, check=False)
        return {"code": done.returncode, "out": _lines(done.stdout), "err": _lines(done.stderr)}

    wrap = ("--wrap=true",)
    start = answer("sbatch", "--test-only", "-p", "a800", "--gpus-per-node=a800:4", "-t", "1:00:00", *wrap)
    result: dict[str, object] = {
        "queue": answer("squeue", "-h", "-t", "all", "-O", text.QUEUE_FORMAT),
        "gpu_jobs": answer("squeue", "-h", "-t", "PENDING,RUNNING", "-O", slurm_cluster._FORMAT),
        "nodes": answer("sinfo", "-h", "-N", "-O", text.NODE_FORMAT),
        "submitted": _lines("".join(submitted)),
        "start": start,
        "refused": {name: answer("sbatch", "--parsable", *more, *wrap) for name, more in REFUSED.items()},
        "no_start": {name: answer("sbatch", "--test-only", *more, *wrap) for name, more in REFUSED.items()},
        "ping": answer("scontrol", "ping"),
        "unknown_id": answer("squeue", "-h", "-j", "99999", "-o", "%T"),
    }
    records = ("sacct", "-n", "-X", "-D", "-P", f"--delimiter={text.SEPARATOR}", "-o", text.RECORD_FORMAT, "-j")
    numbers = ",".join(ids.values())
    if accounting:
        # Accounting lags behind the queue.
        wanted = (f"{ids['running']}{text.SEPARATOR}RUNNING", "REQUEUED", "FAILED")
        until(lambda: all(word in box.command(*records, numbers).stdout for word in wanted), "accounting")
    result["records"] = answer(*records, numbers)
    box.stop_controller()
    result["down"] = {"ping": answer("scontrol", "ping"), "queue": answer("squeue", "-h", "-O", text.QUEUE_FORMAT)}
    return result


def _lines(answer: str) -> list[str]:
    return answer.removesuffix("\n").split("\n") if answer else []


def anonymous(raw: str, box: Box) -> str:
    """The text without the names of this machine."""
    host = re.escape(socket.gethostname().split(".")[0])
    clean = raw.replace(str(box.folder), "/home/ann")
    clean = re.sub(rf"\b{host}\b", "login", clean)
    return clean.replace(r"\u001froot\u001f", r"\u001fann\u001f")


def main(folder: Path) -> None:
    """Write the answers of the Slurm on PATH."""
    accounting = "--no-accounting" not in sys.argv
    box = Box(accounting=accounting, extra="AccountingStoreFlags=job_comment" if accounting else "")
    version = box.command("sinfo", "--version").stdout.split()[-1]
    if int(version.split(".")[0]) >= 23:
        (box.folder / "etc/cgroup.conf").write_text("CgroupPlugin=disabled\n")
    try:
        box.up()
        found = {"version": version, **collect(box, accounting)}
        folder.mkdir(parents=True, exist_ok=True)
        whole = json.dumps(found, indent=1, ensure_ascii=True) + "\n"
        (folder / f"{version}.json").write_text(anonymous(whole, box), encoding="utf-8")
    finally:
        box.down()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
