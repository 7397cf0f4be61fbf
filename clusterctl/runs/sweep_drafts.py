"""What ``--sweep`` says, and the drafts of its runs: one for each combination of values."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

from clusterctl import todays_names
from clusterctl.errors import UsageProblem
from clusterctl.layers import SET_HINT
from clusterctl.recipe import read_recipe
from clusterctl.runs import draft
from clusterctl.runs.draft import Draft
from clusterctl.runs.request import Request
from clusterctl.settings import Settings

MOST = 256
"""Runs of one sweep. Slurm's own limit of an array is 1000 by default (MaxArraySize); a table of more tells nobody
anything, and without Slurm each of them is a process that waits."""

HINT = "write --sweep optim.learning_rate=1e-4,5e-5"


def axes(texts: Sequence[str]) -> dict[str, list[str]]:
    """Keys and their values, as ``--sweep key=value,value`` gives them.

    Raises:
        UsageProblem: no ``key=value,...``, a key twice, the profile's keys, more than ``MOST`` runs.
    """
    found: dict[str, list[str]] = {}
    for text in texts:
        key, equals, rest = text.partition("=")
        key, values = key.strip(), [value.strip() for value in _split(rest)]
        if not equals or not key or not all(values):
            raise UsageProblem(f"--sweep {text!r} is not key=value,value", hint=HINT)
        key, values = _todays(key, values)
        if key in found:
            raise UsageProblem(f"--sweep {key} is said twice", hint=f"write all its values at once: {HINT[6:]}")
        if key.startswith("profile."):
            raise UsageProblem(
                f"--sweep {key}: the runs of a sweep differ in what is trained, not in what they run on",
                hint="submit one sweep for each profile",
            )
        found[key] = values
    count = 1
    for values in found.values():
        count *= len(values)
    if count < 2:
        raise UsageProblem("a sweep of one run is none", hint=f"use --set, or {HINT}")
    if count > MOST:
        sizes = " x ".join(str(len(values)) for values in found.values())
        raise UsageProblem(
            f"this sweep would have {count} runs ({sizes}); at most {MOST}",
            hint="sweep coarsely first, then finely around the best",
        )
    return found


def _todays(key: str, values: Sequence[str]) -> tuple[str, list[str]]:
    """Key and values under today's names."""
    said = [todays_names.of_sets([f"{key}={value}"])[0] for value in values]
    keys = {item.partition("=")[0] for one in said for item in one}
    if len(keys) != 1 or any(len(one) != 1 for one in said):
        raise UsageProblem(
            f"--sweep {key}: it is an old name, and its values are no values of one key today",
            hint="docs/migration.md says what it is today: sweep that",
        )
    return keys.pop(), [one[0].partition("=")[2] for one in said]


def _split(text: str) -> list[str]:
    """At the commas that stand in no bracket and in no quotes, which as in YAML are none in the middle of a word."""
    parts, depth, quote = [""], 0, ""
    for character in text:
        begins = depth or not parts[-1].strip()
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"" and begins:
            quote = character
        elif character in "[{" and begins:
            depth += 1
        elif character in "]}" and depth:
            depth -= 1
        if character == "," and not quote and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    if quote or depth:
        raise UsageProblem(f"--sweep: a quote or bracket in {text!r} is left open", hint="close it")
    return parts


def drafts(request: Request, texts: Sequence[str], parallel: int | None, settings: Settings) -> list[Draft]:
    """A draft for each combination of values, the last key varying fastest. Every one has been validated.

    Where nobody names a profile, all run on the one that is chosen for the first.

    Raises:
        UsageProblem: what is wrong with the sweep or with any of its runs, or they would need different resources.
        NoFit, Unavailable: as ``draft.draft``.
    """
    if parallel is not None and parallel < 1:
        raise UsageProblem(f"--parallel {parallel}: at least one run at a time", hint="leave it out for no limit")
    keys = axes(texts)
    said = {item.partition("=")[0].strip() for item in todays_names.of_sets(request.sets)[0]}
    if both := sorted(said & keys.keys()):
        raise UsageProblem(f"{both[0]} is in --set and in --sweep", hint="say it once")
    recipe = read_recipe(request.recipe)
    if recipe.pipeline:
        names = ", ".join(member.recipe for member in recipe.pipeline)
        raise UsageProblem(f"{recipe.name} is a pipeline; a sweep is of one stage", hint=f"its stages are {names}")
    name = request.name or str(recipe.said.values.get("name") or recipe.name)
    sweep = draft.new_id(name, settings.output_root)
    found: list[Draft] = []
    problems: dict[str, None] = {}
    for number, values in enumerate(itertools.product(*keys.values())):
        swept = tuple(f"{key}={value}" for key, value in zip(keys, values, strict=True))
        asked = dataclasses.replace(
            request,
            name=f"{name}-{number}",
            sets=(*request.sets, *swept),
            profile=request.profile or (found[0].composed.profile_name if found else None),
        )
        try:
            [one] = draft.draft(asked, settings)
        except UsageProblem as e:
            problems[_of_sweep(e.message, keys)] = None
            hint = e.hint
            continue
        found.append(dataclasses.replace(one, run_id=f"{sweep}-{number}", sweep=sweep, swept=swept, parallel=parallel))
    if problems:
        hint = HINT if hint == SET_HINT else hint.replace("--set", "--sweep")
        raise UsageProblem("\n  ".join(problems), hint=hint)
    _refuse_the_same(found)
    return _alike(found)


def _refuse_the_same(found: Sequence[Draft]) -> None:
    """1e-4 and 0.0001, or a key that ``--set`` overrules: the same run would be paid for twice."""
    seen: dict[str, Draft] = {}
    for one in found:
        other = seen.setdefault(one.composed.config.model_copy(update={"name": ""}).model_dump_json(), one)
        if other is not one:
            raise UsageProblem(
                f"--sweep: {', '.join(other.swept)} and {', '.join(one.swept)} are the same run twice",
                hint="each value is a run of its own: leave one out",
            )


def _of_sweep(message: str, keys: Mapping[str, object]) -> str:
    for key in keys:
        message = message.replace(f"--set {key}", f"--sweep {key}")
    return message


def _alike(found: list[Draft]) -> list[Draft]:
    """With resources that are the same for all, as tasks of an array have them: the memory of the greediest."""
    wanted = [one.plan.resources for one in found]
    most = max((one.mem or "" for one in wanted), key=_mebibytes)
    card = max(one.gpu_memory or 0 for one in wanted)
    plans = [
        dataclasses.replace(
            one.plan,
            resources=dataclasses.replace(one.plan.resources, mem=most or None, gpu_memory=card or None),
        )
        for one in found
    ]
    first = plans[0]
    for one, plan in zip(found, plans, strict=True):
        if dataclasses.replace(plan, name=first.name) != first:
            raise UsageProblem(
                f"{', '.join(one.swept)} needs other resources than {', '.join(found[0].swept)}",
                hint="name a profile that suits all of them, or submit two sweeps",
            )
    return [dataclasses.replace(one, plan=plan) for one, plan in zip(found, plans, strict=True)]


def _mebibytes(mem: str) -> float:
    """Slurm's way to write memory: a plain number is of MiB."""
    factors = {"K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0**2}
    number, unit = (mem[:-1], mem[-1].upper()) if mem[-1:].isalpha() else (mem, "M")
    return float(number or 0) * factors.get(unit, 1.0)
