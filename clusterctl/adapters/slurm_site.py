"""A cluster as its site has set it up: partitions, accounts, how GPUs are asked for. Five commands, once."""

from __future__ import annotations

import re

from clusterctl.adapters.slurm import Slurm
from clusterctl.adapters.slurm_commands import ANSWER_WITHIN, Commands, soon
from clusterctl.adapters.slurm_limits import Association, Limits
from clusterctl.errors import Unavailable
from clusterctl.surroundings import SlurmSite


def slurm_site() -> SlurmSite:
    """Nodes, partitions, this user's accounts. Accounting may be missing or not answer: then there are no accounts.

    Raises:
        Unavailable: slurmctld did not answer.
    """
    nodes = Slurm().nodes()
    config = Commands().ask(["scontrol", "show", "config"], soon(ANSWER_WITHIN)).stdout
    limits = Limits()
    mine = _associations(limits)
    accounts = tuple(dict.fromkeys(one.account for one in mine))
    return SlurmSite(
        name=_setting(config, "ClusterName"),
        version=_setting(config, "SLURM_VERSION"),
        nodes=nodes,
        partitions=limits.partitions(accounts),
        gpus_per_node="cons_tres" in _setting(config, "SelectType"),
        account=next((one.account for one in mine if one.default), None),
        accounts=accounts,
        qos=tuple(dict.fromkeys(name for one in mine for name in one.qos)),
    )


def _setting(config: str, name: str) -> str:
    match = re.search(rf"^{name}\s*=\s*(\S+)", config, re.MULTILINE)
    return match[1] if match else ""


def _associations(limits: Limits) -> tuple[Association, ...]:
    try:
        return limits.associations() or ()
    except Unavailable:
        return ()
