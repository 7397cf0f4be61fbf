"""Fuzzing of everything that reads text from outside: no traceback, and never a success that nobody reported.

    python tests/fuzz/fuzz.py --inputs 1000000 --seed 1

Mutates real answers of Slurm and real files: bytes flipped, cut, doubled, joined with those of other seeds, numbers
made huge. Every parser gets its share. Only the program's own errors may come out.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from clusterctl import durations, yaml_text
from clusterctl.adapters import slurm_text, store
from clusterctl.adapters.slurm_words import explain_reason, hint_for, is_ambiguous, refusal
from clusterctl.errors import ClusterctlError
from clusterctl.model import JobState, Resources
from clusterctl.record import Record
from trainers.failures.diagnosis import Evidence, classify, diagnose
from trainers.runtime.files import read_lines

SEEDS: dict[str, tuple[str, ...]] = {
    "queue": (
        "71~RUNNING~0~0~1763800000~1763800010~1763803610~1:00:00~u~gpu-a800-1~None~/home/u/logs/sft~clusterctl:sft-1:0af3",
        "12_[3-6%2]~PENDING~0~1~1763800000~N/A~N/A~1-00:00:00~u~~Nodes required for job are DOWN, DRAINED~/h~(null)",
        "9~COMPLETED~1792~0~1~2~3~UNLIMITED~u~n[1-3,7]~None~/h~x",
    ),
    "record": (
        "71~CANCELLED by 1001~0:15~1~2~3~60~u~n1~/h~clusterctl:a:b",
        "72~OUT_OF_MEMORY~0:125~1~2~3~~u~None assigned~/h~",
        "73~COMPLETED~0:0~1~2~3~60~u~n1~/h~clusterctl:a:b",
    ),
    "nodes": (
        "gpu-a800-1~mixed+drain*~gpu:a800:4(S:0-1)~gpu:a800:3(IDX:0-2)~a800*~64~1000000~7-00:00:00~up~a800~bad card",
        "n2~idle~(null)~gpu:0~cpu~16~250000~infinite~down~(null)~none",
    ),
    "gres": ("gpu:a800:4(S:0-1),gpu:2,shard:8", "gres/gpu:a800:2", "gpu:nvidia_a100_1g.5gb:7(IDX:0-6)", "(null)"),
    "time": ("1-02:03:04", "12:00:00", "UNLIMITED", "30", "2-3", "0:00", "INVALID"),
    "submitted": ("71\n", "71;cluster\n", "lua: hello\n71\n"),
    "start": (
        "sbatch: Job 11 to start at 1763800000 using 64 processors on nodes gpu-a800-1 in partition a800\n",
        "allocation failure: Requested node configuration is not available\n",
    ),
    "words": (
        "sbatch: error: Batch job submission failed: Invalid partition name specified\n",
        "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n",
        "QOSMaxGRESPerUser",
        "AssocGrpCpuRunMinutesLimit",
        "ReqNodeNotAvail, UnavailableNodes:n[1-4]",
    ),
    "log": (
        "[rank3]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
        "step 12/50  loss 1.2034  grad_norm 0.88",
        "slurmstepd: error: *** JOB 1 ON n CANCELLED AT 2 DUE TO TIME LIMIT ***",
        "error: a.csv rows: no answer in row 3",
        "NVRM: Xid (PCI:0000:3b:00): 79, pid=1",
        "KeyError: 'wolf'",
    ),
    "yaml": (
        "stage: sft\nmodel:\n  model_name_or_path: Qwen/Qwen3-8B\n  lora: {r: 4}\ndata:\n  train_files: [a]\n",
        "pipeline:\n  - recipe: cpt\n  - recipe: sft\n    set: {optim.learning_rate: 1e-4}\n",
        'partitions: {a800: gpu, cpu: cpu}\nenv:\n  A: "b"\n',
    ),
    "jsonl": (
        '{"schema":1,"event":"begin","attempt":1,"job_id":"7","host":"n1","time":1.5,"checkpoint":null}\n'
        '{"schema":1,"event":"end","attempt":1,"time":2,"exit_code":1,"outcome":"failed","decision":"stop","why":"x"}\n',
        '{"schema":1,"phase":"training","attempt":1,"step":3,"max_steps":12,"loss":1.5,"peak_memory":1024}',
    ),
}
_RECORD = Record(
    run_id="a", name="a", stage="sft", kind="train", recipe="sft", profile="cpu", scheduler="slurm",
    resources=Resources(), fingerprint="f", created_at=1.0, user="u", host="h", command=("clusterctl",),
)  # fmt: skip
SEEDS["run"] = (json.dumps(asdict(_RECORD)),)
for _kind in ("queue", "record", "nodes"):
    SEEDS[_kind] = tuple(text.replace("~", slurm_text.SEPARATOR) for text in SEEDS[_kind])
for _path in sorted((Path(__file__).resolve().parents[1] / "unit/slurm_outputs").glob("*.json")):
    # What live Slurms of several releases answered.
    _said = json.loads(_path.read_text(encoding="utf-8"))
    SEEDS["queue"] += tuple(_said["queue"]["out"])
    SEEDS["record"] += tuple(_said["records"]["out"])
    SEEDS["nodes"] += ("\n".join(_said["nodes"]["out"]),)
    SEEDS["start"] += ("\n".join(_said["start"]["err"]),)
    SEEDS["words"] += tuple("\n".join(one["err"]) for one in _said["refused"].values())
SUCCESS = "COMPLETED"


def mutated(dice: random.Random, seeds: tuple[str, ...], others: tuple[str, ...]) -> str:
    """A seed with one to six changes."""
    text = dice.choice(seeds)
    for _ in range(dice.randint(1, 6)):
        at, to = sorted((dice.randrange(len(text) + 1), dice.randrange(len(text) + 1)))
        match dice.randrange(8):
            case 0:
                text = text[:at] + text[to:]
            case 1:
                text = (
                    text[:at]
                    + chr(dice.choice((0, 9, 10, 13, 31, 34, 39, 58, 92, 124, 133, 0x2028, 0xD7FF)))
                    + text[at:]
                )
            case 2:
                text = text[:at] + text[at:to] * dice.randint(2, 5) + text[to:]
            case 3:
                text = (
                    text[:at]
                    + dice.choice(("9" * 20, "-1", "1e999", "NaN", "null", "[", "{", "!!x ", "&a *a"))
                    + text[at:]
                )
            case 4:
                other = dice.choice(others)
                text = text[:at] + other[dice.randrange(len(other) + 1) :]
            case 5:
                text = text[:at] + text[at:to][::-1] + text[to:]
            case 6:
                text = text[:at] + text[at:to].swapcase() + text[to:]
            case _:
                text = text[:at] + "".join(map(chr, (dice.randrange(1, 0xD800) for _ in range(3)))) + text[to:]
        text = text[:2000]
    return text


def parsers(folder: Path) -> dict[str, Callable[[str], None]]:
    """What reads each kind of seed, with what must hold of its answer."""

    def states(row: slurm_text.Row | None, text: str) -> None:
        assert row is None or row.job.state is not JobState.COMPLETED or SUCCESS in text.upper()

    def file(name: str, text: str) -> Path:
        path = folder / name
        path.write_text(text, encoding="utf-8", errors="replace")
        return path

    def time_limit(text: str) -> None:
        slurm_text.parse_duration(text)
        try:
            assert durations.seconds(text) > 0
        except ValueError:
            return

    def words(text: str) -> None:
        assert isinstance(explain_reason(text) + refusal(text) + hint_for(text), str)
        is_ambiguous(text)

    def log(text: str) -> None:
        classify(text)
        classify(text, raised=True)
        assert diagnose([], Evidence(state="FAILED", error=text)) is not None

    def lines(text: str) -> None:
        file("attempts.jsonl", text)
        file("progress.json", text)
        store.read_attempts(folder)
        store.read_progress(folder)
        read_lines(folder / "attempts.jsonl")

    def nodes(text: str) -> None:
        for node in slurm_text.parse_nodes(text):
            assert all(gres.count >= 0 for gres in (*node.gpus, *node.gpus_used)) and node.usable in (True, False)

    return {
        "queue": lambda text: states(slurm_text.parse_queue_line(text), text),
        "record": lambda text: states(slurm_text.parse_record_line(text), text),
        "nodes": nodes,
        "gres": lambda text: all(g.count > 0 for g in slurm_text.parse_gres(text)) or _fail(text),
        "time": time_limit,
        "submitted": lambda text: slurm_text.parse_submitted(text),
        "start": lambda text: slurm_text.parse_start(text),
        "words": words,
        "log": log,
        "yaml": lambda text: (yaml_text.read(file("a.yaml", text)), yaml_text.scalar(text)),
        "jsonl": lines,
        "run": lambda text: (file(store.RECORD, text), store.read_record(folder)),
    }  # type: ignore[dict-item]


def _fail(text: str) -> None:
    raise AssertionError(text)


def fuzz(inputs: int, seed: int) -> Iterator[tuple[str, str, BaseException]]:
    """Feed so many inputs in all; yields (parser, input, what came out) for each that must not have come out."""
    dice = random.Random(seed)
    everything = tuple(text for texts in SEEDS.values() for text in texts)
    with tempfile.TemporaryDirectory() as folder:
        read = parsers(Path(folder))
        assert set(read) == set(SEEDS)
        for number in range(inputs):
            name = tuple(SEEDS)[number % len(SEEDS)]
            text = mutated(dice, SEEDS[name], everything)
            try:
                read[name](text)
            except ClusterctlError:
                continue
            except Exception as e:  # noqa: BLE001 - that is what is looked for
                yield name, text, e


def main() -> None:
    """Fuzz, and print what was found."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--inputs", type=int, default=1_000_000)
    options.add_argument("--seed", type=int, default=1)
    args = options.parse_args()
    began, found = time.monotonic(), 0
    for name, text, problem in fuzz(args.inputs, args.seed):
        found += 1
        print(f"{name}: {type(problem).__name__}: {problem}\n    {text!r}", flush=True)
        if found == 20:
            break
    print(f"{args.inputs} inputs, {len(SEEDS)} parsers, {found} findings, {time.monotonic() - began:.0f} s")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
