"""When Slurm would start a job that nobody has submitted: ``sbatch --test-only``, one call for a question a minute.

The answer is an estimate of Slurm's backfill planning. It binds nobody, and it looks at neither QOS ceilings nor
(unless the site enforces them) the partition's limits.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping

from clusterctl import durations
from clusterctl.adapters.slurm_cache import SlurmCache
from clusterctl.adapters.slurm_commands import ANSWER_WITHIN, Commands, soon
from clusterctl.adapters.slurm_text import parse_start
from clusterctl.adapters.slurm_words import is_ambiguous, refusal
from clusterctl.errors import Unavailable
from clusterctl.model import QueueStart, Resources
from clusterctl.render import gpu_request

_BELIEVED = 60.0
"""Seconds for which an answer serves all terminals."""

_LOCK_PATIENCE = 3.0
_NO_ANSWER = "no answer"
_NO_ANSWER_BELIEVED = 10.0
"""Seconds in which nobody waits again for a controller that was silent."""


def options(resources: Resources) -> list[str]:
    """What the job template writes into its #SBATCH lines about resources, as options of sbatch."""
    r = resources
    gpus = gpu_request(r)
    asked = {
        "nodes": str(r.nodes),
        "ntasks-per-node": "1",
        "cpus-per-task": str(r.cpus_per_task),
        "mem": r.mem,
        r.gpu_request: gpus,
        "time": durations.slurm_time(r.time_limit),
        "partition": r.partition,
        "account": r.account,
        "qos": r.qos,
        "constraint": r.constraint,
    }
    return [f"--{name}={value}" for name, value in asked.items() if value]


class SlurmStarts:
    """Answers to 'when would this start?', shared between the terminals of a user. Never raises."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self._cache = SlurmCache()

    def ask(self, resources: Resources) -> QueueStart:
        """Slurm's estimate. Where it does not answer the start is unknown, never now."""
        asked = options(resources)
        key = json.dumps(asked)
        with self._cache.locked(_LOCK_PATIENCE):
            answers = self._answers()
            kept = answers.get(key) or answers.get(_NO_ANSWER)
            if kept is None:
                start, key = self._test_only(asked, key)
                kept = {"at": start.at, "why": start.why, "refused": start.refused, "asked_at": time.time()}
                self._cache.save_starts(json.dumps({**answers, key: kept}))
        at = kept["at"]
        return QueueStart(at if isinstance(at, (int, float)) else None, str(kept["why"]), bool(kept["refused"]))

    def _answers(self) -> dict[str, Mapping[str, object]]:
        """Those of the last minute, and after the last change that we made."""
        now, changed = time.time(), self._cache.changed_at()
        found: dict[str, Mapping[str, object]] = {}
        try:
            for key, kept in json.loads(self._cache.starts()).items():
                believed = _NO_ANSWER_BELIEVED if key == _NO_ANSWER else _BELIEVED
                if max(now - believed, changed) < kept["asked_at"] <= now and {"at", "why", "refused"} <= {*kept}:
                    found[key] = kept
        except (ValueError, TypeError, AttributeError, KeyError):
            return {}  # torn, or not ours
        return found

    def _test_only(self, asked: list[str], key: str) -> tuple[QueueStart, str]:
        """The answer, and under which key it is to be kept."""
        deadline = soon(ANSWER_WITHIN)
        try:
            self._commands.require_controller(deadline)
            done = self._commands.ask(["sbatch", "--test-only", *asked, "--wrap=:"], deadline)
        except Unavailable as e:
            return QueueStart(None, e.message), _NO_ANSWER
        if done.returncode == 0:
            at = parse_start(done.stderr)
            return QueueStart(at, "" if at is not None else "sbatch --test-only gave no time"), key
        words = refusal(done.stderr.replace("allocation failure: ", ""))
        if is_ambiguous(words):
            return QueueStart(None, words), _NO_ANSWER
        return QueueStart(None, words, refused=True), key
