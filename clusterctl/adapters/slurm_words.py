"""Slurm's words in ours: why a job waits, why a submission was refused, whether an error says anything at all."""

from __future__ import annotations

import re

_REASONS = {
    "None": "",
    "Resources": "waiting for free resources",
    "Priority": "waiting behind jobs of higher priority",
    "Dependency": "waiting for another job to end",
    "DependencyNeverSatisfied": "will never start: the job before it did not succeed",
    "BeginTime": "waiting for its begin time (after a requeue about two minutes)",
    "Cleaning": "still cleaning up after its last attempt",
    "JobHeldUser": "held by its owner: `scontrol release` lets it go on",
    "JobHeldAdmin": "held by an administrator: only they can release it",
    "JobArrayTaskLimit": "waiting for other tasks of its array",
    "JobLaunchFailure": "could not be launched, or was killed from outside",
    "NonZeroExitCode": "ended with an exit code that is not 0",
    "TimeLimit": "reached its time limit",
    "OutOfMemory": "used more host memory than it had asked for",
    "NodeDown": "a node that it needs is down",
    "SystemFailure": "Slurm or a node failed",
    "BadConstraints": "no node has what it asks for",
    "Licenses": "waiting for a licence",
    "Reservation": "waiting for its reservation to begin",
    "ReservationDeleted": "its reservation was deleted",
    "PartitionDown": "the partition is down",
    "PartitionInactive": "the partition takes no jobs now",
    "PartitionConfig": "breaks a rule of the partition (nodes, time, account or QOS)",
    "PartitionTimeLimit": "asks for more time than the partition allows",
    "PartitionNodeLimit": "asks for more nodes than the partition allows or has",
    "AccountNotAllowed": "the account may not use the partition",
    "InvalidAccount": "the account does not exist",
    "InvalidQOS": "the QOS does not exist",
    "QOSNotAllowed": "the QOS may not be used here",
    "QOSJobLimit": "the QOS has its maximum of jobs",
    "QOSResourceLimit": "the QOS is using all that it may",
    "QOSTimeLimit": "the QOS has used up its time",
    "QOSUsageThreshold": "the QOS has used up its share",
    "launch failed requeued held": "could not be launched and is held: `scontrol release` tries again",
    "job requeued in held state": "requeued and held: `scontrol release` lets it go on",
}
"""Reasons of squeue(1), those of ended jobs too."""

_LIMITED = {
    "gres": "GPUs",
    "cpu": "CPUs",
    "node": "nodes",
    "mem": "memory",
    "memory": "memory",
    "jobs": "running jobs",
    "submitjob": "submitted jobs",
    "submitjobs": "submitted jobs",
    "wall": "wall time",
    "wallduration": "wall time",
    "cpumins": "CPU minutes",
    "cpuminutes": "CPU minutes",
    "cpurunminutes": "CPU minutes of running jobs",
    "gresminutes": "GPU minutes",
    "billing": "billing units",
}

_AMBIGUOUS = re.compile(
    r"timed out|unable to contact|zero bytes|unexpected message|(message|communication|connection) .*failure"
    r"|connection (refused|reset)|broken pipe|no route to host|network is unreachable|transport endpoint"
    r"|temporarily unable|standby mode|protocol authentication|not responding",
    re.IGNORECASE,
)

_NO_GPU = "see `clusterctl gpus` for what the nodes have"
_HINTS = (
    ("qos policy", "a limit of your account or QOS: `sacctmgr show qos format=name,maxsubmitpu,maxtrespu,maxwall`"),
    ("account", "`sacctmgr show associations user=$USER` lists your accounts; set `account` in clusterctl.yaml"),
    ("qos", "`sacctmgr show associations user=$USER format=account,qos` lists yours; set `qos` in clusterctl.yaml"),
    ("memory", "ask for less memory (`mem`): no node of the partition has as much for that many CPUs"),
    ("node configuration", f"no node of the partition has that many GPUs, CPUs or that type: {_NO_GPU}"),
    ("generic resource", f"the cluster has no GPU of that type: {_NO_GPU}"),
    ("feature", "no node has the `constraint`: `sinfo -o '%N %f'` lists their features"),
    ("time limit", "ask for less time: `sinfo -o '%P %l'` shows what each partition allows"),
    ("node count", "ask for fewer nodes: `sinfo -o '%P %D'` shows what each partition has"),
    ("job array", "the site allows fewer runs in one array: `scontrol show config | grep MaxArraySize`"),
    ("job dependency", "the job that it should follow is not known to Slurm any more"),
    ("group not permitted", "your groups may not use this partition: choose another one"),
    ("access/permission denied", "the site does not let you do this: its administrators can say why"),
)


def explain_reason(reason: str) -> str:
    """Why a job waits, or how it ended, in a sentence. A reason that is not known here comes back as it is."""
    reason = reason.strip()
    if reason in _REASONS:
        return _REASONS[reason]
    if reason.startswith("ReqNodeNotAvail"):
        details = re.sub(r"^(UnavailableNodes)?[:, ]*", "", reason.removeprefix("ReqNodeNotAvail").lstrip(", "))
        return "nodes that it needs are not available" + (f": {details}" if details else "")
    if reason.startswith("RaisedSignal"):
        return f"was ended by signal {reason.removeprefix('RaisedSignal').lstrip(':')}"
    if reason.startswith("Nodes required for job are DOWN"):
        return "the nodes that could run it are down, drained or reserved"
    return _explain_limit(reason) or reason


def _explain_limit(reason: str) -> str | None:
    """'QOSMaxGRESPerUser' -> 'the QOS has a limit on GPUs per user, which is reached'."""
    match = re.fullmatch(r"(QOS|Assoc)?(Grp|Max)([A-Za-z]+?)(?:Per(User|Account|Job|Node))?(?:Limit)?", reason)
    if match is None:
        return None
    owner, kind, what, per = match.groups()
    name = {"QOS": "QOS", "Assoc": "account"}.get(owner or "", "site")
    limited = _LIMITED.get(what.lower(), what)
    if per in ("Job", "Node"):
        return f"asks for more {limited} per {per.lower()} than the {name} allows"
    if kind == "Grp":
        return f"the {name} is using all the {limited} that it may"
    return f"you are using all the {limited} that the {name} allows per {(per or 'user').lower()}"


def refusal(stderr: str) -> str:
    """What Slurm said, without the name of the program, in one line."""
    lines = [re.sub(r"^\w+: (error|fatal): ", "", line.strip()) for line in stderr.split("\n")]
    return "; ".join(line for line in lines if line) or "no reason given"


def is_ambiguous(stderr: str) -> bool:
    """The error is about the way to the controller: what was asked for may have happened or may still happen."""
    return _AMBIGUOUS.search(stderr) is not None


def hint_for(message: str) -> str:
    """What to do about a refusal; empty for one that is not known here."""
    lowered = message.lower()
    return next((hint for words, hint in _HINTS if words in lowered), "")
