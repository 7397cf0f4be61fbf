"""Slurm from the login node: the controller, the site's partitions, and what this user may ask of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from clusterctl.adapters.slurm import Slurm
from clusterctl.adapters.slurm_limits import Association, Limits, Qos
from clusterctl.doctor.check import Check
from clusterctl.durations import slurm_time, words
from clusterctl.errors import Unavailable
from clusterctl.hardware import Node
from clusterctl.model import Resources
from clusterctl.schema import Profile, Site
from clusterctl.surroundings import Partition

DEFAULT_TIME = int(Profile.model_fields["time"].default)
"""Seconds that a profile asks for when it does not say."""


def check_slurm(site: Site, wanted: Resources | None) -> Iterator[Check]:
    """Everything that Slurm is asked; ``wanted`` is what a job would ask for, None where no profile is named."""
    limits = Limits()
    try:
        limits.require_controller()
        partitions, nodes = {one.name: one for one in limits.partitions()}, Slurm().nodes()
    except Unavailable as e:
        yield Check("Slurm", "fail", e.message, e.hint or "ask the administrator")
        return
    yield Check("Slurm", "ok", f"slurmctld answers; {len(partitions)} partitions, {len(nodes)} nodes")
    for name, why in _named(site, wanted, partitions).items():
        yield from check_partition(name, why, partitions, nodes, wanted)
    try:
        yield from check_account(site, wanted, limits)
    except Unavailable as e:
        yield Check("account", "unknown", e.message, e.hint or "ask the administrator")


def _named(site: Site, wanted: Resources | None, partitions: Mapping[str, Partition]) -> dict[str, str]:
    """The partitions that jobs would go to, each with who names it."""
    default = {p.name: "the cluster's default" for p in partitions.values() if p.default}
    if wanted:
        # Slurm takes several, and starts the job in the one that is free first.
        return dict.fromkeys(wanted.partition.split(","), "the profile's") if wanted.partition else default
    by_name: dict[str, list[str]] = {}
    for kind, names in site.partitions.items():
        for name in names.split(","):
            by_name.setdefault(name.strip(), []).append(kind)
    said = {name: f"`partitions` of the site file, for {', '.join(kinds)}" for name, kinds in by_name.items()}
    return said or default


def check_partition(
    name: str, why: str, partitions: Mapping[str, Partition], nodes: tuple[Node, ...], wanted: Resources | None
) -> Iterator[Check]:
    """Whether a partition exists, is up, has nodes that work, and lets the job run as long as it asks for."""
    title = f"partition {name}"
    found = partitions.get(name)
    if found is None:
        remedy = f"correct `partitions` in clusterctl.yaml; there are: {', '.join(partitions)}"
        yield Check(title, "fail", f"there is no such partition ({why})", remedy)
        return
    if found.state != "UP":
        yield Check(
            title, "fail", f"is {found.state}: no job starts there", "name another one, or ask the administrator"
        )
        return
    if not found.allowed:
        remedy = "name another one, or ask the administrator to let you in"
        yield Check(title, "fail", "its rules keep you out (RootOnly, AllowGroups)", remedy)
        return
    here = [node for node in nodes if name in node.partitions]
    usable = [node for node in here if node.usable]
    if here and not usable:
        states = ", ".join(f"{count} {state}" for state, count in Counter(node.state for node in here).items())
        yield Check(title, "fail", f"none of its nodes takes work: {states}", "`sinfo -R` says why; name another one")
        return
    if wanted and (wanted.nodes > len(here) or wanted.nodes > (found.max_nodes or wanted.nodes)):
        allowed = min(len(here), found.max_nodes or len(here))
        evidence = f"the profile asks for {wanted.nodes} nodes, the partition gives {allowed}"
        yield Check(title, "fail", evidence, "take a profile with fewer nodes, or another partition")
        return
    yield Check(title, "ok", f"up, {len(usable)} of {len(here)} nodes take work, MaxTime {_time(found.max_time)}")
    yield from check_time(title, found.max_time, "the partition", wanted)


def check_time(title: str, limit: int | None, whose: str, wanted: Resources | None) -> Iterator[Check]:
    """Whether the time that is asked for is allowed: Slurm takes a job that is too long, and never starts it."""
    asked = wanted.time_limit if wanted else DEFAULT_TIME
    if limit is None or asked <= limit:
        return
    remedy = f"--set profile.time={_time(limit)}, or `time: {_time(limit)}` in the profile"
    if wanted:
        evidence = f"the profile asks for {words(asked)}, {whose} allows {words(limit)}: the job would never start"
        yield Check(f"{title}: time", "fail", evidence, remedy)
    else:
        evidence = f"{whose} allows {words(limit)}; a profile that says nothing asks for {words(asked)}"
        yield Check(f"{title}: time", "warn", evidence, remedy)


def check_account(site: Site, wanted: Resources | None, limits: Limits) -> Iterator[Check]:
    """The account and the QOS of jobs, and what these allow. Only accounting knows them."""
    account = wanted.account if wanted else site.account
    qos = wanted.qos if wanted else site.qos
    mine = limits.associations()
    if mine is None:
        yield Check("account", "skipped", "this cluster has no accounting", "none: no limits of yours are kept")
        return
    names = list(dict.fromkeys(a.account for a in mine))
    default = next((a.account for a in mine if a.default), None)
    if not mine:
        evidence = "you have no account on this cluster: where it enforces them, it refuses every job"
        yield Check("account", "warn", evidence, "ask the administrator for one")
        return
    if account and account not in names:
        remedy = f"correct `account` in clusterctl.yaml; yours are: {', '.join(names)}"
        yield Check("account", "fail", f"you have no account {account}", remedy)
        return
    yield Check("account", "ok", account or f"{default or 'none by default'} (yours: {', '.join(names)})")
    used = [a for a in mine if (account or default) in (a.account, None)]
    yield from _check_qos(qos, used, limits.qos(), wanted)
    for one in used:
        if one.partition in ("", wanted.partition if wanted else ""):
            yield from check_time("account", one.max_wall, f"account {one.account}", wanted)
            yield from _check_gpus("account", one.max_gpus, wanted, f"account {one.account}")


def _check_qos(
    asked: str | None, used: list[Association], known: tuple[Qos, ...], wanted: Resources | None
) -> Iterator[Check]:
    allowed = list(dict.fromkeys(name for association in used for name in association.qos))
    if asked and asked not in allowed:
        remedy = f"correct `qos` in clusterctl.yaml; yours are: {', '.join(allowed) or 'none'}"
        yield Check("QOS", "fail", f"you may not use QOS {asked}", remedy)
        return
    name = asked or (allowed[0] if len(allowed) == 1 else None)
    found = next((qos for qos in known if qos.name == name), None)
    if found is None:
        yield Check("QOS", "ok", f"the default of the account (yours: {', '.join(allowed) or 'none'})")
        return
    limit = found.max_gpus if found.max_gpus is not None else found.max_gpus_per_user
    gpus = f", GPUs at most {limit}" if limit is not None else ""
    yield Check("QOS", "ok", f"{found.name}: MaxWall {_time(found.max_wall)}{gpus}")
    yield from check_time("QOS", found.max_wall, f"QOS {found.name}", wanted)
    yield from _check_gpus("QOS", limit, wanted, f"QOS {found.name}")


def _check_gpus(title: str, limit: int | None, wanted: Resources | None, whose: str) -> Iterator[Check]:
    asked = wanted.nodes * wanted.gpus_per_node if wanted else 0
    if limit is not None and asked > limit:
        evidence = f"the profile asks for {asked} GPUs, {whose} allows {limit}: the job would never start"
        yield Check(f"{title}: GPUs", "fail", evidence, "take a profile with fewer GPUs, or another QOS")


def _time(limit: int | None) -> str:
    return "unlimited" if limit is None else slurm_time(limit)
