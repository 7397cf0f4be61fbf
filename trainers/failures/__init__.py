"""Why a run ended: a table of causes, and the search for them in logs. The standard library only.

The guard asks it in the job, without the login node; `clusterctl diagnose` asks it anywhere. A new cause is one entry
in one of the tables beside this file, with an example under tests/failures.
"""

from __future__ import annotations

from trainers.failures import distributed, environment, gpu, host, scheduler, training
from trainers.failures.cause import Cause

CAUSES: dict[str, Cause] = {
    cause.name: cause for table in (gpu, host, training, distributed, environment, scheduler) for cause in table.CAUSES
}
"""Every cause that a log can show, by name."""
