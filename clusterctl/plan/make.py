"""RunConfig + profile + site -> Plan: pure, no I/O."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from clusterctl import __version__
from clusterctl.compose import Composed
from clusterctl.errors import UsageProblem
from clusterctl.model import Activation, Plan, Resources, SchedulerName
from clusterctl.schema import Profile, Site


def make(composed: Composed, site: Site, scheduler: SchedulerName, *, python: str) -> Plan:
    """Decide everything that the job script will say. ``python`` runs where the site names no environment.

    Raises:
        UsageProblem: several nodes without Slurm, or a key among the variables.
    """
    profile = composed.profile
    if scheduler == "local" and profile.nodes > 1:
        raise UsageProblem(
            f"profile {composed.profile_name} asks for {profile.nodes} nodes, but without Slurm there is one",
            hint="choose a profile with nodes: 1, or --scheduler slurm",
        )
    return Plan(
        name=composed.config.name,
        scheduler=scheduler,
        resources=_with_cards(resources(profile, site), composed, scheduler),
        activation=activation(profile, site, python),
        launcher=profile.launcher,
        zero=profile.strategy.startswith("zero"),
        processes_per_node=profile.processes,
        version=__version__,
        ray_start_timeout=_ray(composed),
    )


def _ray(composed: Composed) -> int | None:
    config = composed.config
    # Only some stages have an engine to choose; pydantic's plugin sees the one of the others.
    return int(config.method.verl.ray_start_timeout) if str(config.engine) == "verl" else None


def resources(profile: Profile, site: Site) -> Resources:
    """What a job of this profile asks of the scheduler."""
    return Resources(
        nodes=profile.nodes,
        gpus_per_node=profile.gpus_per_node,
        gpu_type=profile.gpu_type,
        cpus_per_task=profile.cpus,
        mem=profile.mem,
        time_limit=profile.time,
        signal_lead=profile.signal_lead,
        partition=profile.partition or _partition(profile, site),
        account=profile.account or site.account,
        qos=profile.qos or site.qos,
        constraint=profile.constraint,
        gpu_request=site.gpu_request,
    )


def _with_cards(wanted: Resources, composed: Composed, scheduler: SchedulerName) -> Resources:
    """What follows from what there is: Slurm's partition; without Slurm which cards, and how large they have to be."""
    if scheduler == "slurm":
        offered = composed.offer.partition if composed.offer else None
        return replace(wanted, partition=wanted.partition or offered)
    asked = composed.asked
    return replace(wanted, gpu_ids=asked.gpu_ids, mixed=asked.mixed, gpu_memory=_gpu_memory(composed))


def _gpu_memory(composed: Composed) -> int | None:
    """Bytes that a card of an open type has to hold: what was asked for, and the estimate where any card has it."""
    profile, memory = composed.profile, composed.memory
    if profile.gpu_type or not profile.gpus_per_node:
        return None
    # Who names cards knows them: an estimate is no reason to refuse one.
    counts = memory is not None and composed.usable is not None and not composed.asked.gpu_ids
    needs = min(memory.total, composed.usable) if counts and memory and composed.usable else 0
    return max(profile.least_memory or 0, needs) or None


def _partition(profile: Profile, site: Site) -> str | None:
    key = profile.gpu_type or ("gpu" if profile.gpus_per_node else "cpu")
    return site.partitions.get(key)


def activation(profile: Profile, site: Site, python: str) -> Activation:
    """What the shell does before Python runs. Raises UsageProblem for a key among the variables."""
    environment = site.environment
    target = environment.name or (_absolute(environment.path) if environment.path else "")
    return Activation(
        modules=tuple(site.modules),
        kind=environment.kind,
        target=python if environment.kind == "none" else target,
        env=tuple(_variables(profile, site).items()),
        secrets_file=_absolute(site.secrets.file),
        secret_names=tuple(site.secrets.names),
    )


def _variables(profile: Profile, site: Site) -> dict[str, str]:
    """Environment of the job, weakest first: ours, the profile's, the site's."""
    threads = max(1, profile.cpus // profile.processes)
    ours = {
        "PYTHONUNBUFFERED": "1",
        # torchrun and accelerate set this to 1 when it is unset, which halves the speed on CPUs.
        "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
    }
    if profile.gpus_per_node:
        # Cards of several types on one host get other ordinals from CUDA than from everybody else.
        ours["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        ours["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"
    hub = site.hugging_face
    hub_variables = {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": hub.home,
        "HF_HUB_OFFLINE": "1" if hub.offline else None,
    }
    named = profile.env | site.env
    if keys := sorted(set(named) & set(site.secrets.names)):
        raise UsageProblem(
            f"env holds {', '.join(keys)}: keys would stand in the script for all to read",
            hint=f"put them into {site.secrets.file} (chmod 600), or export them",
        )
    return ours | {k: v for k, v in hub_variables.items() if v} | named


def _absolute(path: str) -> str:
    """The job runs elsewhere. ``~/`` is left to the job's shell, and a bare program name to its PATH."""
    return path if path.startswith("~/") or "/" not in path else str(Path(path).absolute())
