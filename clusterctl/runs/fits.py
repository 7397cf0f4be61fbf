"""What would fit, of a run that ran out of memory: the first change that the planner holds to be enough, as a command.

The planner's estimate is corrected by what is known since: the run filled its card, and wanted more.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from yaml import YAMLError

from clusterctl.adapters import metrics, store
from clusterctl.errors import ClusterctlError
from clusterctl.layers import leaves
from clusterctl.models.find import head_of, shape_of
from clusterctl.plan import change, fit, ladder, memory
from clusterctl.plan.estimates import TIGHT
from clusterctl.runs.find import Run
from clusterctl.runs.judge import size
from clusterctl.runs.report import cards
from clusterctl.settings import Settings
from trainers import hardware
from trainers.config import RunConfig, load
from trainers.hardware import GpuType
from trainers.runtime import checkpoints

_TRIED = re.compile(r"Tried to allocate (\d+(?:\.\d+)?) (MiB|GiB)")
_MOST = 8
"""GPUs of a node that may be thought of."""
_NOT_AGAIN = {"--profile", "-p", "--gpu-type", "--gpus", "--gpu-ids", "--notify"}
"""Hardware, and an address that the record does not hold."""
_FOR_ONCE = {"--mixed", "--json", "--follow", "-f", "--dry-run"}


@dataclass(frozen=True)
class _Memory:
    """``needs`` in bytes, corrected; ``has`` is what there is of it, ``of`` in words."""

    needs: Callable[[RunConfig], int]
    has: int
    of: str


def remedy(run: Run, quote: str, settings: Settings) -> str:
    """What to do, with the exact command; empty where there is nothing to change.

    ``quote`` is the line of the log that shows it.
    """
    try:
        config = load(run.run_dir / "run.yaml")
    except (OSError, ValueError, YAMLError):
        return ""
    try:
        known = _memory(run, config, quote, settings)
    except ClusterctlError:
        known = None
    in_place = ""
    for words, changed, command in _ways(run, config):
        if known is None:
            return f"{command}: {words}; whether that is enough is not known here"
        needs = known.needs(changed)
        if needs <= TIGHT * known.has:
            return f"{command}: {words}, needs {fit.gib(needs)} of {fit.gib(known.has)} GiB {known.of} (estimate)"
        if changed.parallel == config.parallel:
            short = f"may still need {fit.gib(needs)} of {fit.gib(known.has)} GiB {known.of} (estimate)"
            in_place = f"{command}: {words}, the most that can be changed in place; it {short}"
    # Of a host's memory one can ask for more.
    return in_place if run.record.resources.gpus_per_node or "CUDA" in quote else ""


def _memory(run: Run, config: RunConfig, quote: str, settings: Settings) -> _Memory | None:
    """None where model, card or limit are not known. Raises ClusterctlError where the model cannot be found."""
    model = config.model
    home = settings.site().hugging_face.home
    shape = shape_of(model.model_name_or_path, hub_home=home, head=head_of(config.stage), revision=model.revision)
    on_card = run.record.resources.gpus_per_node > 0
    card, asked = _card(run) if on_card else None, run.record.resources
    has = card.usable if card else size(asked.mem) if asked.mem and not on_card else None
    if has is None:
        return None

    def estimate(one: RunConfig) -> int:
        found = memory.estimate(one, shape, card)
        return found.total if on_card else found.host_total

    wanted = max([has, *_peaks(run)]) + _tried(quote)
    more = max(1.0, wanted / estimate(config))
    return _Memory(
        lambda one: int(estimate(one) * more), has, f"of {fit.article(card.name.upper())}" if card else "of the job"
    )


def _card(run: Run) -> GpuType | None:
    for one in cards(run.run_dir):
        return hardware.find(one.name, one.memory)
    asked = run.record.resources.gpu_type
    return hardware.find(asked) if asked else None


def _peaks(run: Run) -> list[int]:
    """Bytes that steps before took, as PyTorch counts."""
    lines = metrics.whole(run.run_dir)
    return [int(peak) for line in lines if (peak := store.number(line.get("peak_memory")))]


def _tried(quote: str) -> int:
    """Bytes that were wanted beyond what there was."""
    found = _TRIED.search(quote)
    return int(float(found[1]) * {"MiB": 2**20, "GiB": 2**30}[found[2]]) if found else 0


def _ways(run: Run, config: RunConfig) -> Iterator[tuple[str, RunConfig, str]]:
    """Words, configuration and command, the cheapest first: in place, then on other hardware from the beginning."""
    saved = checkpoints.newest_step(run.run_dir)
    for rung in ladder.ladder(config, shorter=False, host_has_room=lambda _: False):
        if rung.resumes or saved is None:
            sets = [f"{key}={_plain(value)}" for key, value in _changed(config, rung.config)]
            words = [word for item in sets for word in ("--set", item)]
            yield rung.words, rung.config, f"`{shlex.join(['clusterctl', 'resume', run.record.run_id, *words])}`"
    asked = run.record.resources
    if not asked.gpus_per_node or config.parallel.num_nodes > 1:
        return
    for one in change.rungs(config, asked.gpu_type or "gpu", asked.gpus_per_node, _MOST, batch_open=False):
        if one.profile and (made := _shared(config, one.profile, one)):
            yield one.words, made, _submit(run, one.profile, one)


def _shared(config: RunConfig, profile: str, one: change.Change) -> RunConfig | None:
    count = int(profile.removesuffix("-offload").split("-")[-2])  # Slurm's words for a card may have dashes too
    parallel = {"strategy": "zero3", "offload": "all" if profile.endswith("-offload") else "none"}
    values = config.model_dump(mode="json")
    values["parallel"] |= {**parallel, "launcher": "torchrun", "processes_per_node": count}
    values["model"]["gradient_checkpointing"] = True
    values["model"]["quantization"] = "none"
    values["optim"] |= {key.partition(".")[2]: value for key, value in one.sets.items() if key.startswith("optim.")}
    try:
        return type(config).model_validate(values)
    except ValidationError:
        return None


def _changed(before: RunConfig, after: RunConfig) -> Iterator[tuple[str, object]]:
    old = dict(leaves(before.model_dump(mode="json")))
    for key, value in leaves(after.model_dump(mode="json")):
        if old.get(key) != value:
            yield key, value


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _submit(run: Run, profile: str, one: change.Change) -> str:
    """The command line of the submission on other hardware, in words where it would begin a pipeline or sweep anew."""
    record = run.record
    if len(record.command) < 3 or Path(record.command[2]).stem != Path(record.recipe).stem or record.sweep:
        return f"submit {record.recipe} with `--profile {profile}`"
    words, skip = ["clusterctl", *record.command[1:3], "--profile", profile], False
    for word in record.command[3:]:
        name = word.partition("=")[0]
        if skip or name in _NOT_AGAIN or word in _FOR_ONCE:
            skip = not skip and word in _NOT_AGAIN
            continue
        words.append(word)
    sets: Sequence[str] = [f"{key}={_plain(value)}" for key, value in one.sets.items()]
    sets = [*sets, "model.gradient_checkpointing=true"]
    return f"`{shlex.join([*words, *(word for item in sets for word in ('--set', item))])}`"
