"""An examination: the site and this machine, and with a profile a job of one minute that looks at its nodes."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator

from clusterctl.compose import read_profile
from clusterctl.doctor import keys, node
from clusterctl.doctor.check import Check, Report, Section, together
from clusterctl.errors import NoFit
from clusterctl.model import SchedulerName
from clusterctl.plan import derive, make
from clusterctl.runs import doctor_job, schedulers
from clusterctl.runs.inventory import inventory
from clusterctl.schema import Profile, Site
from clusterctl.settings import Settings


def examine(
    settings: Settings, *, on: str | None = None, scheduler: str | None = None, wait: float = 600
) -> Iterator[str | Report]:
    """What is being done, in words, and at the end the report. ``wait``: seconds that a job may stay in the queue.

    Raises:
        UsageProblem, NotFound: site file, profile or scheduler is none.
        Interrupted: Ctrl-C, after the job had been submitted; it is cancelled.
    """
    site = settings.site()
    name = schedulers.choose(scheduler or settings.scheduler)
    profile = _as_submitted(read_profile(on), site, name) if on is not None else None
    yield "looking at the site"
    sections = [Section("site", tuple(_site(site, profile, name)))]
    yield "looking at this machine"
    # No profile's hardware is asked of this machine: a login node has none of it.
    activation = make.activation(profile or Profile(), site, sys.executable)
    mine = node.look_here(activation, node.asked(settings.output_root, site, None), trains=profile is None)
    sections.append(Section(f"this machine ({socket.gethostname()})", tuple(mine)))
    if profile is not None and on is not None:
        checks: tuple[Check, ...] = ()
        for said in doctor_job.look(profile, site, settings.output_root, name, wait):
            if isinstance(said, str):
                yield said
            else:
                checks = said
        checks = (*checks, *node.check_clocks(mine, checks))
        hosts = ", ".join(sorted({check.host for check in checks if check.host}))
        title = f"job with profile {on}" + (f" (on {hosts})" if hosts else "")
        sections.append(Section(title, together(checks)))
    yield Report(tuple(sections))


def _as_submitted(profile: Profile, site: Site, scheduler: SchedulerName) -> Profile:
    """The profile with what ``submit`` would make of it here: number format, CPUs, the partition that has the cards."""
    try:
        choices = derive.cards(profile, inventory(scheduler, site))
    except NoFit:  # more than there is: what is asked of Slurm, or of this machine, says so with the numbers
        return profile
    made = derive.with_card(profile, choices)
    offered = choices[0].offer.partition if choices[0].offer else None
    if make.resources(made, site).partition is None and offered:
        made = made.model_copy(update={"partition": offered})
    return made


def _site(site: Site, profile: Profile | None, scheduler: SchedulerName) -> Iterator[Check]:
    yield from keys.check_secrets_file(site)
    yield from keys.check_keys(site)
    if scheduler == "local":
        yield Check("Slurm", "skipped", "jobs run on this machine, without Slurm", "none")
        return
    from clusterctl.doctor import slurm

    yield from slurm.check_slurm(site, make.resources(profile, site) if profile else None)
