"""What Slurm allows a user: its partitions (one scontrol), accounts (one sacctmgr) and QOS (another)."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import dataclass

from clusterctl.adapters import process
from clusterctl.adapters.slurm_commands import ANSWER_WITHIN, DOWN_HINT, Commands, soon
from clusterctl.adapters.slurm_text import parse_duration
from clusterctl.adapters.slurm_words import refusal
from clusterctl.errors import Unavailable
from clusterctl.surroundings import Partition

_PAIR = re.compile(r"(\w+)=(\S*)")


@dataclass(frozen=True)
class Association:
    """An account that the user may use, with its limits; ``partition`` is empty where it holds for all.

    ``default`` marks the account of jobs that name none.
    """

    account: str
    default: bool
    partition: str
    qos: tuple[str, ...]
    max_wall: int | None
    max_gpus: int | None


@dataclass(frozen=True)
class Qos:
    """A QOS with the limits of one job and of one user."""

    name: str
    max_wall: int | None
    max_gpus: int | None
    max_gpus_per_user: int | None


class Limits:
    """Asks for limits. Each answer comes within ``ANSWER_WITHIN`` seconds."""

    def __init__(self) -> None:
        self._commands = Commands()

    def require_controller(self) -> None:
        """Come back only when slurmctld is there.

        Raises:
            Unavailable: it is down, hangs, or this machine knows no cluster.
        """
        self._commands.require_controller(soon(ANSWER_WITHIN))

    def partitions(self, accounts: Collection[str] = ()) -> tuple[Partition, ...]:
        """All partitions that the user may see. ``accounts`` are the user's, where they are known.

        Raises:
            Unavailable: Slurm did not answer.
        """
        done = self._commands.ask(["scontrol", "show", "partition", "--oneliner"], soon(ANSWER_WITHIN))
        if done.returncode != 0:
            raise Unavailable(f"scontrol: {refusal(done.stderr)}", hint=DOWN_HINT)
        lines = (line for line in done.stdout.split("\n") if line.startswith("PartitionName="))
        return tuple(_partition(line, accounts) for line in lines)

    def associations(self) -> tuple[Association, ...] | None:
        """The user's accounts; None on a cluster without accounting.

        Raises:
            Unavailable: accounting did not answer.
        """
        columns = "defaultaccount,account,partition,qos,maxwall,maxtres"
        rows = self._accounting(["user", process.own_user(), "withassoc"], columns)
        if rows is None:
            return None
        return tuple(
            Association(
                account=account,
                default=account == default,
                partition=partition,
                qos=tuple(filter(None, qos.split(","))),
                max_wall=parse_duration(wall),
                max_gpus=_gpus(tres),
            )
            for default, account, partition, qos, wall, tres in rows
            if account  # a user without any has one line of nothing
        )

    def qos(self) -> tuple[Qos, ...]:
        """Every QOS of the cluster.

        Raises:
            Unavailable: accounting did not answer.
        """
        rows = self._accounting(["qos"], "name,maxwall,maxtres,maxtresperuser") or ()
        return tuple(Qos(name, parse_duration(wall), _gpus(job), _gpus(user)) for name, wall, job, user in rows)

    def _accounting(self, what: list[str], columns: str) -> list[list[str]] | None:
        """The rows of ``sacctmgr show``; None without accounting."""
        done = self._commands.ask(["sacctmgr", "-nP", "show", *what, f"format={columns}"], soon(ANSWER_WITHIN))
        if "not running a supported accounting_storage" in done.stderr + done.stdout:
            return None
        if done.returncode != 0:
            raise Unavailable(f"sacctmgr: {refusal(done.stderr or done.stdout)}", hint=DOWN_HINT)
        rows = (line.split("|") for line in done.stdout.split("\n"))
        return [row for row in rows if len(row) == columns.count(",") + 1]


def _partition(line: str, accounts: Collection[str]) -> Partition:
    """A line of ``scontrol show partition --oneliner``, whose values have no blanks in them."""
    said = dict(_PAIR.findall(line))
    denied = set(said.get("DenyAccounts", "").split(","))
    return Partition(
        name=said["PartitionName"],
        state=said.get("State", "UP"),
        default=said.get("Default") == "YES",
        allowed=(said.get("RootOnly") != "YES" or os.getuid() == 0)
        and _among(said.get("AllowGroups", "ALL"), _groups())
        and (not accounts or _among(said.get("AllowAccounts", "ALL"), accounts))
        and not (accounts and set(accounts) <= denied),
        tier=int(tier) if (tier := said.get("PriorityTier", "")).isdigit() else 1,
        max_time=parse_duration(said.get("MaxTime", "")),
        max_nodes=int(most) if (most := said.get("MaxNodes", "")).isdigit() else None,
    )


def _among(allowed: str, ours: Collection[str]) -> bool:
    return allowed in ("ALL", "") or bool(set(allowed.split(",")) & set(ours))


def _groups() -> tuple[str, ...]:
    import grp

    names = []
    for number in {os.getgid(), *os.getgroups()}:
        try:
            names.append(grp.getgrgid(number).gr_name)
        except KeyError:
            continue
    return tuple(names)


def _gpus(tres: str) -> int | None:
    """``cpu=8,gres/gpu=2`` -> 2: GPUs of any type."""
    match = re.search(r"(?:^|,)gres/gpu=(\d+)", tres)
    return int(match[1]) if match else None
