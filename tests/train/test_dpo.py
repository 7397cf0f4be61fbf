"""Stage dpo: it learns what is preferred, from the start of the run, and says honestly how far it went."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from tests.tiny import write_jsonl, write_run
from tests.train.conftest import environment, metrics, weights
from tests.train.preferences import pairs, points, run_all
from trainers.config import parse
from trainers.config.stages.dpo import DpoMethod

SCHEDULE: dict[str, Any] = {
    "stage": "dpo",
    "optim__max_steps": 20,
    "optim__learning_rate": 5e-3,
    "optim__per_device_train_batch_size": 4,
    "eval__eval_steps": 10,
    "output__save_steps": 10,
    "method__kl_prompts": 4,
}


@pytest.fixture
def data(folder: Path) -> Path:
    """Pairs to train on, as they are published in HH-RLHF: two transcripts with the same beginning."""
    rows = [
        {side: f"\n\nHuman: {row['prompt']}\n\nAssistant: {row[side]}" for side in ("chosen", "rejected")}
        for row in pairs(48)
    ]
    return write_jsonl(folder / "train.jsonl", rows)


@pytest.fixture
def held_out(folder: Path) -> Path:
    """Other pairs, as columns; one more than fits into batches."""
    return write_jsonl(folder / "held_out.jsonl", pairs(9, first=100))


def test_it_learns_and_its_reference_is_its_start(folder: Path, data: Path, held_out: Path, tiny_model: Path) -> None:
    def write(name: str, **overrides: Any) -> Path:
        values = SCHEDULE | {"data__eval_files": str(held_out)} | overrides
        return write_run(folder / name, tiny_model, data, **values)

    trained = folder / "trained"
    adapter = {"model__adapter_name_or_path": str(trained)}
    runs = [
        write("continued", **adapter),
        write("continued-scored", method__precompute_ref_log_probs=True, **adapter),
        write("full", model__adapter="none"),
        write("full-scored", model__adapter="none", method__precompute_ref_log_probs=True),
        write("dora", model__lora={"r": 4, "use_dora": True}),
        write("embedding", model__lora={"r": 4, "target_modules": ["embed_tokens", "q_proj"]}),
    ]
    run_all(write("trained", model__lora={"r": 4, "lora_dropout": 0.1}, eval__samples=1), *runs)

    before, middle, after = points(trained, "held_out")
    assert [before["step"], middle["step"], after["step"]] == [0, 10, 20]
    nothing = {"reward_chosen": 0.0, "reward_rejected": 0.0, "margin": 0.0, "accuracy": 0.0, "kl": 0.0}
    assert before == {"step": 0, "rows": "held_out", **nothing}
    assert after["accuracy"] == 1.0 and after["margin"] > 0.5
    assert after["margin"] == pytest.approx(after["reward_chosen"] - after["reward_rejected"])
    assert after["kl"] > middle["kl"] > 0.001
    # The loss of the same pairs, which no batch but the last one has fewer of.
    line = [line for line in metrics(trained) if "eval_loss" in line][-1]
    assert math.log(2) > line["eval_loss"] > -math.log(1 / (1 + math.exp(-after["margin"]))) - 0.05
    assert line["eval_kl"] == after["kl"] and line["eval_rewards/margins"] == after["margin"]
    summary = json.loads((trained / "training_metrics.json").read_text(encoding="utf-8"))
    assert summary["eval_before"]["eval_rewards/accuracies"] == 0.0
    assert summary["eval_after"]["eval_rewards/accuracies"] == 1.0
    assert summary["eval_after"]["eval_kl"] == after["kl"]
    assert summary["rows"] == {"training": 48, "held_out": 9, "truncated": 0, "dropped": 0}
    assert [point["step"] for point in points(trained, "training")] == list(range(1, 21))
    (sample,) = json.loads((trained / "samples.json").read_text(encoding="utf-8"))["samples"]
    assert sample["expected"] == pairs(1, 100)[0]["chosen"]

    # The adapter that goes on is not the base model: against that one the KL would be what the last run ended with.
    for run in runs:
        first, *_, last = points(run.parent, "held_out")
        assert first == before, run.parent.name
        assert last["kl"] > 0 and last["margin"] > 0, run.parent.name
    for run in runs[2:]:
        # Without dropout the first step of training sees the same two models.
        assert points(run.parent, "training")[0] == {**nothing, "step": 1, "rows": "training", "kl": None}
    # Scored before training or in every step, the reference says the same; batches are padded in another way.
    for live, scored in (runs[0:2], runs[2:4]):
        for one, other in zip(points(live.parent, "held_out"), points(scored.parent, "held_out"), strict=True):
            assert [*one.values()][2:] == pytest.approx([*other.values()][2:], rel=1e-3)
    # The reference is no part of the result.
    for run in runs:
        assert not list(run.parent.glob("**/ref")), run.parent.name

    # From a checkpoint on all is the same again, with what the reference said before: bit for bit.
    again = []
    for run in (runs[0], runs[3]):
        copy = folder / f"{run.parent.name}-again"
        shutil.copytree(run.parent, copy)
        shutil.rmtree(copy / "final_model")
        shutil.rmtree(copy / "checkpoints" / "checkpoint-20")
        again.append(copy)
    scores = {path: path.stat().st_mtime_ns for path in again[1].glob("pairs/*/*.arrow")}
    said = run_all(*(copy / "run.yaml" for copy in again))
    assert said.count("resuming from checkpoint-10") == 2
    for copy, run in zip(again, (runs[0], runs[3]), strict=True):
        assert weights(copy) == weights(run.parent)
        assert (copy / "reward_kl_tracker.json").read_bytes() == (run.parent / "reward_kl_tracker.json").read_bytes()
    assert len(scores) == 4
    assert scores == {path: path.stat().st_mtime_ns for path in again[1].glob("pairs/*/*.arrow")}


EVERY_LOSS = """
import json, sys
import torch
from pathlib import Path
from trainers.config import parse
from trainers.data.examples import load_examples
from trainers.errors import InputProblem
from trainers.model import divergence
from trainers.run import Run
from trainers.runtime.arguments import shared_arguments
from trainers.runtime.progress import Progress
from trainers.stages import dpo

values, folder = json.loads(sys.argv[1]), Path(sys.argv[2])
config = parse(values)
run = Run(folder, 1, Progress(folder / "progress.json", 1, writes=False), None)
trainer = dpo.prepare(config, run, shared_arguments(config, folder, "cpu"), load_examples(config)).trainer
assert trainer.beta == 0.2 and trainer.label_smoothing == 0.1
assert trainer.loss_types == ["robust", "ipo"] and trainer.loss_weights == [0.5, 2.0]
begin = {name: value.clone() for name, value in trainer.model.state_dict().items()}
batch = next(iter(trainer.get_train_dataloader()))
found = {}
for name in sys.argv[3:]:
    trainer.model.load_state_dict(begin)
    trainer.loss_types, trainer.loss_weights = [name], [1.0]
    optimizer = torch.optim.AdamW([w for w in trainer.model.parameters() if w.requires_grad], 5e-3)
    trainer.model.train()
    values = []
    for _ in range(12):
        loss = trainer.compute_loss(trainer.model, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        values.append(loss.item())
    found[name] = [values, trainer._metrics["train"]["rewards/margins"][-12:]]
(folder / "losses.json").write_text(json.dumps(found))

# The exact KL, block by block, against the whole of both distributions at once.
trainer.model.eval()
texts = [([5, 6, 7], [8, 9, 10, 11, 2]), ([5], [6, 7])]
vocabulary = trainer.model.config.vocab_size
divergence.CHUNK = 2 * vocabulary
trainer.watch(texts)
assert len(trainer.divergence._blocks) == 4
found, tokens = 0.0, 0
with torch.no_grad():
    for prompt, answer in texts:
        ids = torch.tensor([prompt + answer])
        p = trainer.model(ids).logits[0].log_softmax(-1)
        with trainer.model.disable_adapter():
            q = trainer.model(ids).logits[0].log_softmax(-1)
        kl = (p.exp() * (p - q)).sum(-1)
        found, tokens = found + kl[len(prompt) - 1 : -1].sum().item(), tokens + len(answer)
assert found > 0.001
assert abs(trainer._kl() - found / tokens) < 1e-6, (trainer._kl(), found / tokens)
# And against what was kept of the reference.
trainer.divergence._kept = []
with trainer.model.disable_adapter():
    trainer.divergence.remember(trainer.model)
assert abs(trainer._kl() - found / tokens) < 1e-6
divergence.KEPT = 4 * 7 * vocabulary - 1
try:
    trainer.divergence.remember(trainer.model)
except InputProblem as e:
    assert "over 7 tokens" in e.message
else:
    raise AssertionError("too much was kept")
"""


def test_every_loss_runs(folder: Path, data: Path, tiny_model: Path) -> None:
    wanted = {"loss_type": ["robust", "ipo"], "loss_weights": [0.5, 2.0], "label_smoothing": 0.1, "beta": 0.2}
    run = write_run(folder / "run", tiny_model, data, method=wanted, **SCHEDULE)
    values = yaml.safe_load(run.read_text(encoding="utf-8"))
    names = typing.get_args(typing.get_args(DpoMethod.model_fields["loss_type"].annotation)[0])
    assert len(names) == 15
    argv = [sys.executable, "-c", EVERY_LOSS, json.dumps(values), str(folder), *names]
    done = subprocess.run(argv, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((folder / "losses.json").read_text(encoding="utf-8"))
    for name, (values, margins) in found.items():
        assert all(math.isfinite(value) for value in values), name
        assert values[-1] < values[0], name
        # sft does not look at the rejected answer; discopop has its slope the wrong way around 0.
        assert margins[0] == 0.0 and (margins[-1] > 0.1 or name in ("sft", "discopop")), name
    expected = {"sigmoid": math.log(2), "hinge": 1.0, "ipo": 1 / 0.4**2, "robust": math.log(2), "apo_zero": 1.0}
    for name, value in expected.items():
        assert found[name][0][0] == pytest.approx(value, rel=1e-6), name


@pytest.mark.parametrize(
    ("method", "word"),
    [
        ({"loss_type": "sigmod"}, "loss_type"),
        ({"beta": 0.0}, "greater than 0"),
        ({"loss_weights": [1.0, 2.0]}, "2 loss_weights for 1 in loss_type"),
        ({"loss_type": ["ipo", "ipo"]}, "names a loss twice"),
        ({"loss_type": "exo_pair"}, "exo_pair needs label_smoothing"),
        ({"label_smoothing": 0.1}, "label_smoothing is known to loss_type robust"),
    ],
)
def test_what_the_schema_refuses(method: dict[str, Any], word: str) -> None:
    values = {"stage": "dpo", "model": {"model_name_or_path": "m"}, "data": {"train_files": "d"}, "method": method}
    with pytest.raises(ValidationError, match=word):
        parse(values)


def test_an_adapter_on_the_head_is_refused(
    folder: Path, data: Path, tiny_model: Path, bad: Callable[[Path], list[str]]
) -> None:
    targets = {"target_modules": ["lm_head", "q_proj"]}
    lines = bad(write_run(folder / "run", tiny_model, data, stage="dpo", model__lora=targets))
    assert "an adapter on it would not learn" in lines[0]
